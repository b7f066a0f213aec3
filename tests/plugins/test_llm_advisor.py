"""llm_advisor asks a language model, holds it to a schema, and takes nothing of what it says on
trust.

A real server on llama.cpp, and llama.cpp itself, answer with the small project's own model: it
babbles, yet within the schema.
"""

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import until
from contexts import context, domain, load, training
from projects import REPOSITORY, read_yaml

from meetara_build.agents import Context, Proposal
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import ask_all

advisor = load("llm_advisor")
POLICY = {"may_change": ["training", "lora"], "at_most_times": 8}


@pytest.fixture
def seen(tmp_path: Path) -> Context:
    """Two trained domains, one of them with a failure, and one that is not trained."""
    runs = [
        training("nutrition", 5.5, {"lora.rank": 8}),
        training("nutrition", 5.25, key="n", metrics={"steps": 40, "best_step": 12}),
        training("programming", 4.0, key="p"),
        replace(
            training("programming", 0.0),
            outcome="failed",
            metrics={},
            error="out of memory\n" * 100,
        ),
    ]
    nutrition = domain(tmp_path, "nutrition", decided={"adapter": "n"})
    programming = domain(tmp_path, "programming", decided={"adapter": "p"}, locked=["lora"])
    return context(
        nutrition, programming, domain(tmp_path, "storytelling"), runs=runs, policy=POLICY
    )


def told(seen: Context, **settings: Any) -> Context:
    """The context as the agent gets it, with its settings."""
    return replace(seen, settings=settings)


def sound(proposals: list[Proposal], seen: Context) -> None:
    """What a model may bring about at most, whatever it says."""
    for one in proposals:
        now = seen.domains[one.domain].config[one.key]
        assert one.domain in ("nutrition", "programming")
        assert type(one.value) is type(now) and one.value != now
        assert not (one.domain == "programming" and one.key.startswith("lora."))
        assert (
            one.key.startswith(("training.", "lora."))
            and one.confidence == 0.3
            and 0 < one.expected_gain <= 0.1
        )
        assert one.reason.startswith("a language model: ") and "validation loss" in one.evidence[0]


# A model that runs


@pytest.fixture(scope="module")
def model(built_project: Path) -> Path:
    """A small model, of the session's own project."""
    return sorted((built_project / "artifacts" / "nutrition" / "gguf").glob("nutrition-*.gguf"))[0]


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    """The URL of a llama.cpp server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(model),
        "--n_ctx",
        "8192",
        "--port",
        str(port),
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: process.poll() is not None or answers(port), 60)
            assert process.poll() is None
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_llama_cpp_server_is_asked_and_answers_the_same_again(server: str, seen: Context) -> None:
    first = advisor.propose(told(seen, url=server))
    sound(first, seen)
    assert advisor.propose(told(seen, url=server)) == first


def test_the_schema_holds_even_a_model_that_babbles(server: str, seen: Context) -> None:
    shown = advisor.pick_domains(seen)
    types = advisor.allowed(seen.domains["nutrition"], POLICY)
    schema = advisor.answer_schema(2, list(shown), types)
    schema["properties"]["proposals"]["minItems"] = 2  # or it would rather say nothing
    settings = advisor.understood({"url": server})
    keys = {"nutrition": types, "programming": advisor.allowed(seen.domains["programming"], POLICY)}
    for question in ("Propose two changes.", "What should change?", "lora.rank"):
        text = advisor.from_server(settings, [{"role": "user", "content": question}], schema)
        found = json.loads(text)["proposals"]
        assert len(found) == 2
        for one in found:
            assert set(one) == {"domain", "key", "value", "reason", "figure", "expected_gain"}
            assert one["domain"] in shown and one["key"] in types and len(one["reason"]) <= 200
            assert isinstance(one["value"], type(types[one["key"]])) or isinstance(
                types[one["key"]], float
            )
        sound(list(advisor.read_answer(text, seen, keys, 2)), seen)


def test_a_gguf_file_is_asked_in_the_agents_own_process(
    model: Path, seen: Context, tmp_path: Path
) -> None:
    given = {"context": told(seen, gguf=str(model))}
    file = REPOSITORY / "plugins" / "llm_advisor.py"
    prepared = {"llm_advisor": partial(prepare_plugin, "llm_advisor", file, given)}
    first, second = (
        ask_all(prepared, {"hook": "propose"}, 60, tmp_path)["llm_advisor"] for _ in range(2)
    )
    assert first.fault is None
    assert first.value == second.value
    sound([Proposal(**one) for one in first.value], seen)


def test_a_gguf_file_is_asked_also_where_the_threads_of_torch_have_worked(
    model: Path, seen: Context, tmp_path: Path
) -> None:
    """As an embedding model's do before agents are asked: in a fork of such a process llama.cpp
    waits for ever."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.randn(2000, 2000) @ torch.randn(2000, 2000)
    torch.set_num_threads(threads)
    test_a_gguf_file_is_asked_in_the_agents_own_process(model, seen, tmp_path)


# What is asked, without a model


def test_it_is_shipped_switched_off() -> None:
    agents = read_yaml(REPOSITORY / "conf" / "build.yaml")["agents"]
    assert agents["policy"]["llm_advisor"] == "never"
    assert "llm_advisor" not in agents["settings"]


def test_the_model_sees_the_trained_domains_their_runs_and_errors(seen: Context) -> None:
    shown = advisor.pick_domains(seen)
    assert list(shown) == ["nutrition", "programming"]
    keys = {name: advisor.allowed(one, POLICY) for name, one in shown.items()}
    found = advisor.facts(seen, shown, keys)
    assert found["domains"]["nutrition"]["config"]["lora.rank"] == 16
    assert "lora.rank" not in found["domains"]["programming"]["config"]
    first, second = found["domains"]["nutrition"]["runs"]
    assert (first["validation_loss_after"], first["with"]) == (5.5, {"lora.rank": 8})
    assert (second["steps"], second["best_step"]) == (40, 12) and "with" not in second
    assert [one["domain"] for one in found["errors"]] == ["programming"]
    assert len(found["errors"][0]["error"]) == 200
    assert len(json.dumps(found)) < 5000


def test_only_numbers_and_switches_that_policy_allows_can_be_proposed(seen: Context) -> None:
    found = advisor.allowed(
        seen.domains["nutrition"], {"may_change": ["lora", "training.epochs", "base"]}
    )
    assert found == {
        "lora.rank": 16,
        "lora.alpha": 32,
        "lora.dropout": 0.0,
        "lora.rslora": False,
        "lora.dora": False,
        "training.epochs": 3,
    }


def test_what_gates_a_model_cannot_be_moved(tmp_path: Path) -> None:
    gates = {"evaluation.max_loss": 5.0, "gguf.logits_bound": 0.02, "gguf.imatrix.enabled": True}
    found = advisor.allowed(
        domain(tmp_path, "nutrition", config=gates), {"may_change": ["evaluation", "gguf"]}
    )
    assert found == {"gguf.imatrix.enabled": True}


def test_without_anything_trained_nobody_is_asked(tmp_path: Path) -> None:
    untrained = context(domain(tmp_path, "nutrition"), policy=POLICY)
    assert advisor.propose(told(untrained, url="http://127.0.0.1:9")) == []


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "give either url or gguf, or set agents.policy.llm_advisor to never"),
        ({"url": "http://a", "gguf": "b.gguf"}, "give either url or gguf"),
        (
            {"ulr": "http://a"},
            "unknown setting 'ulr'; known: url, model, api_key_env, gguf, max_proposals, seconds",
        ),
        ({"url": 3}, "url is 3; give a str"),
        ({"url": "http://a", "max_proposals": True}, "max_proposals is True; give a int"),
        ({"url": "http://a", "seconds": "long"}, "seconds is 'long'; give a float"),
        (
            {"url": "http://127.0.0.1:9/v1"},
            "http://127.0.0.1:9/v1/chat/completions: no answer .*; start the server, or mend",
        ),
        ({"url": "no url"}, "no answer .* mend agents.settings.llm_advisor in conf/build.yaml"),
        (
            {"url": "http://a", "api_key_env": "NO_SUCH_KEY"},
            "the environment variable NO_SUCH_KEY is not set; set it",
        ),
        ({"gguf": "no/such.gguf"}, "no/such.gguf: is not there; mend gguf"),
        ({"gguf": "README.md"}, "README.md: llama.cpp cannot load it .*; give another file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(
    seen: Context, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        advisor.propose(told(seen, **settings))


# What comes back, from servers that are not what they should be

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@pytest.fixture
def listening() -> Iterator[Callable[[Answer], tuple[str, list[dict[str, Any]]]]]:
    """``listening(answer)``: the URL of an HTTP server that answers so, and what it has been
    asked."""
    servers: list[http.server.HTTPServer] = []

    def started(answer: Answer) -> tuple[str, list[dict[str, Any]]]:
        asked: list[dict[str, Any]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
                status, said = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1/", asked

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


def saying(content: Any) -> bytes:
    """A chat completion."""
    text = content if isinstance(content, str) else json.dumps(content)
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


GOOD = {
    "domain": "nutrition",
    "key": "training.epochs",
    "value": 2,
    "reason": "the best step came early",
    "figure": "seconds",
    "expected_gain": 0.1,
}


def test_an_openai_endpoint_gets_the_schema_its_way_and_the_key_in_a_header(
    listening: Any, seen: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    url, asked = listening(lambda body: (200, saying({"proposals": [GOOD]})))
    found = advisor.propose(told(seen, url=url, model="big", api_key_env="MY_KEY", max_proposals=2))
    assert found == [
        Proposal(
            "nutrition",
            "training.epochs",
            2,
            "a language model: the best step came early",
            (f"run {seen.runs[1].id}: validation loss 5.25, 10 s",),
            0.1,
            0.3,
            "seconds",
        )
    ]
    [request] = asked
    assert (request["path"], request["key"], request["model"]) == (
        "/v1/chat/completions",
        "Bearer s3cret",
        "big",
    )
    assert (request["temperature"], request["seed"]) == (0, 17)
    assert request["response_format"]["type"] == "json_schema"
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["proposals"]["maxItems"] == 2
    assert "at most 2 changes" in request["messages"][0]["content"]
    assert "s3cret" not in json.dumps(request["messages"])


def test_a_server_that_knows_no_json_schema_is_asked_the_older_way(
    listening: Any, seen: Context
) -> None:
    url, asked = listening(
        lambda body: (
            (422, b"no")
            if body["response_format"]["type"] == "json_schema"
            else (200, saying({"proposals": []}))
        )
    )
    assert advisor.propose(told(seen, url=url)) == []
    assert [one["response_format"]["type"] for one in asked] == ["json_schema", "json_object"]


def answer_of(*proposals: dict[str, Any]) -> bytes:
    return saying({"proposals": proposals})


WRONG = {
    "refused": (
        401,
        b"who are you?",
        r"refused with HTTP 401 \(who are you\?\); mend agents.settings.llm_advisor",
    ),
    "sent elsewhere": (302, b"", "refused with HTTP 302"),
    "in trouble": (500, b"", "refused with HTTP 500"),
    "asked for too much": (400, b"too long", r"refused with HTTP 400 \(too long\)"),
    "no JSON": (200, b"<html>", "answered as no chat-completions endpoint does; mend url"),
    "other JSON": (200, b'{"choices": []}', "answered as no chat-completions endpoint does"),
    "a list": (200, b"[]", "answered as no chat-completions endpoint does"),
    "prose": (
        200,
        saying("I would lower it."),
        "did not answer in the JSON it was asked for: 'I would lower it.'; use one",
    ),
    "an answer that was cut off": (
        200,
        saying('{"proposals": [{"domain": "nut'),
        "did not answer in the JSON",
    ),
    "nothing": (200, saying(None), "did not answer in the JSON"),
    "half a proposal": (200, answer_of({"domain": "nutrition"}), "is not what it was asked for"),
    "a deep list": (200, saying("[" * 100_000), "did not answer in the JSON"),
    "a value of another type": (
        200,
        answer_of({**GOOD, "value": 2.5}),
        "proposed 2.5 for training.epochs, which is 3 now",
    ),
    "a value that is no number": (
        200,
        answer_of({**GOOD, "value": "2"}),
        "is not what it was asked for; use another one",
    ),
    "a promise of 500%": (
        200,
        answer_of({**GOOD, "expected_gain": 5}),
        "is not what it was asked for",
    ),
    "no promise": (200, answer_of({**GOOD, "expected_gain": None}), "is not what it was asked for"),
    "a domain that is no name": (
        200,
        answer_of({**GOOD, "domain": []}),
        "is not what it was asked for",
    ),
    "text among proposals": (
        200,
        saying({"proposals": ["shorter"]}),
        "proposed shorter, which is not what it was asked for",
    ),
    "another figure": (
        200,
        answer_of({**GOOD, "figure": "beauty"}),
        "is not what it was asked for",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_one_clear_fault(listening: Any, seen: Context, what: str) -> None:
    status, said, fault = WRONG[what]
    url, _ = listening(lambda body: (status, said))
    with pytest.raises(ValueError, match=fault):
        advisor.propose(told(seen, url=url))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 3},
        {"domain": "programming", "key": "lora.rank", "value": 8},
        {"key": "data.max_tokens", "value": 100},
        {"key": "training.observers", "value": 1},
        {"domain": "storytelling"},
        {"domain": "unheard_of"},
    ],
)
def test_what_may_not_be_or_is_so_already_is_left_out(
    listening: Any, seen: Context, changes: dict[str, Any]
) -> None:
    url, _ = listening(lambda body: (200, answer_of({**GOOD, **changes}, GOOD)))
    assert [one.value for one in advisor.propose(told(seen, url=url))] == [2]


def test_more_than_was_asked_for_is_cut(listening: Any, seen: Context) -> None:
    url, _ = listening(
        lambda body: (200, answer_of(*[{**GOOD, "value": 4 + number} for number in range(50)]))
    )
    assert len(advisor.propose(told(seen, url=url, max_proposals=2))) == 2


def test_whole_numbers_are_taken_for_keys_with_a_decimal_point(
    listening: Any, seen: Context
) -> None:
    url, _ = listening(
        lambda body: (200, answer_of({**GOOD, "key": "training.weight_decay", "value": 1}))
    )
    [found] = advisor.propose(told(seen, url=url))
    assert (found.key, found.value, type(found.value)) == ("training.weight_decay", 1.0, float)


def test_one_that_does_not_answer_is_given_up(seen: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"no answer .*start the server"):
            advisor.propose(told(seen, url=url, seconds=0.3))
