"""Whatever an agent does, who asked gets one clear line, in time; the other agents' answers are
whole, and nothing goes on running."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hostile import (
    ANSWERS,
    GOOD,
    PROPOSE,
    SECONDS,
    SOON,
    START,
    Ask,
    assert_says,
    hook,
    list_children,
)

from meetara_build.agents import Context
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import LARGEST_LOG, Answer, Host, ask_all, ask_in_turn
from meetara_build.hosting.supervisor import LARGEST_ANSWER

FAULTS = {
    "raises as it is imported": (
        "raise RuntimeError('not today')",
        r"RuntimeError: not today \(bad.py:\d+\)",
    ),
    "raises in its hook": (hook("raise KeyError('loss')"), r"KeyError: 'loss' \(bad.py:\d+\)"),
    "raises in a generator": (
        hook("yield one()", "1 / 0"),
        r"ZeroDivisionError: division by zero \(bad.py:\d+\)",
    ),
    "raises what cannot be shown": (
        "class Bad(BaseException):\n    def __str__(self): raise self\n" + hook("raise Bad"),
        "Bad: no reason given",
    ),
    "raises with a long and dangerous text": (
        hook("raise ValueError('a' * 5000 + '\\x1b[2J')"),
        r"ValueError: aaaa",
    ),
    "leaves as it is imported": ("sys.exit(3)", r"SystemExit: 3 \(bad.py:\d+\)"),
    "exits": (
        hook("os._exit(3)"),
        r"ended without an answer \(exit status 3\); .*bad.log says more",
    ),
    "crashes": (
        hook("ctypes.string_at(0)"),
        r"ended without an answer \(killed by SIGSEGV\); .*bad.log says more",
    ),
    "kills its group": (
        hook("os.killpg(0, signal.SIGKILL)"),
        r"ended without an answer \(killed by SIGKILL\)",
    ),
    "kills its keeper": (
        hook("os.kill(os.getppid(), signal.SIGKILL)", "time.sleep(60)"),
        "ended without an answer",
    ),
    "closes its files": (
        hook("os.closerange(0, 1000)", "return [one()]"),
        "ended without an answer",
    ),
    "closes its files and goes on": (
        hook("os.closerange(0, 1000)", "while True: pass"),
        "ended without an answer",
    ),
    "loops": (
        hook("while True: pass"),
        r"gave no answer within 0.7 s and was stopped; see agents.seconds in conf/build.yaml",
    ),
    "sleeps as it is imported": ("time.sleep(600)", "gave no answer within 0.7 s"),
    "does not hear SIGTERM": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + hook("time.sleep(600)"),
        "gave no answer within 0.7 s",
    ),
    "proposes without end": (
        hook("while True: yield one()"),
        "propose gives more than 300; give the best ones",
    ),
    "gives a very long list": (hook("return [None] * 10_000_000"), "propose gives more than 300"),
    "gives text": (hook("return 'training.epochs'"), "propose gives a str; give a list, or yield"),
    "gives a mapping": (hook("return {'key': 1}"), "propose gives a dict; give a list, or yield"),
    "gives a number": (hook("return 3"), "propose gives a int; give a list, or yield"),
    "gives one proposal alone": (
        hook("return one()"),
        "propose gives a Proposal; give a list, or yield",
    ),
    "gives mappings among others": (
        hook("return [one(), {}]"),
        "propose gives a dict among others; give Proposal only",
    ),
    "promises what is no number": (
        hook("return [one(expected_gain=float('nan'))]"),
        r"the proposal for 'training.epochs' is no finite JSON \(.*float.*\); use plain numbers and text",
    ),
    "proposes an object": (
        hook("return [one(value=threading.Lock())]"),
        "is no finite JSON .*lock",
    ),
    "proposes a function": (hook("return [one(value=lambda: 1)]"), "is no finite JSON .*function"),
    "proposes a list that holds itself": (
        hook("value = []", "value.append(value)", "return [one(value=value)]"),
        "is no finite JSON",
    ),
    "proposes a deep list": (
        hook("value = []", "for _ in range(100_000): value = [value]", "return [one(value=value)]"),
        "is no finite JSON",
    ),
    "gives 100 MB of text": (
        hook("return [one(value='x' * 100_000_000)]"),
        "gives 100 MB; give 4 MB at most",
    ),
    "recurses without end": (
        "def deeper(): deeper()\n" + hook("deeper()"),
        r"RecursionError: .* \(bad.py:\d+\)",
    ),
    "takes 10 GB at once": (hook("bytearray(10 << 30)"), "MemoryError"),
    "takes 10 GB by and by": (
        hook("import numpy", "kept = [numpy.zeros(8 << 20) for _ in range(160)]"),
        "MemoryError",
    ),
    "asks for what no hook gives": (
        "@hookimpl\ndef propose(contxt): return []",
        r"Argument\(s\) \{'contxt'\} are declared .*; the hooks are propose\(context\), observe\(progress\) and insights",
    ),
    "has a hook of an unknown name": (
        "@hookimpl\ndef proposes(context): return []",
        r"unknown hook 'proposes'; the hooks are propose\(context\)",
    ),
    "has no hook": (
        "def propose(context): return []",
        "has none of the functions propose, observe, insights marked @hookimpl",
    ),
    "does not parse": ("def propose(:", r"SyntaxError: .*bad.py, line \d+"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_an_agent_at_fault_is_one_clear_line(ask: Ask, what: str) -> None:
    source, fault = FAULTS[what]
    seconds = SOON if fault.startswith("gave no answer") else SECONDS
    assert_says(ask(source, seconds=seconds).fault, fault)


def test_those_that_hang_do_not_hold_up_the_others(tmp_path: Path) -> None:
    sources = {
        "a": GOOD,
        "loops": START + hook("while True: pass"),
        "b": GOOD,
        "sleeps": START + "time.sleep(600)",
        "c": GOOD,
        "trickles": START + hook("while True: to_every_descriptor(b'x'), time.sleep(0.01)"),
        "d": GOOD,
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    given = {"context": Context({}, settings={"mine": 1})}
    prepared = {
        name: partial(prepare_plugin, name, tmp_path / f"{name}.py", given) for name in sources
    }
    answers = ask_all(prepared, PROPOSE, 1.5, tmp_path / "logs")
    assert [answers[name].value for name in "abcd"] == [ANSWERS] * 4
    for name in ("loops", "sleeps", "trickles"):
        assert_says(answers[name].fault, "gave no answer within 1.5 s")
        assert answers[name].seconds < 3
    assert not list_children()


def test_what_is_asked_in_turn_is_answered_by_one_process_and_ends_with_a_fault(
    tmp_path: Path,
) -> None:
    both = hook("os.environ['ASKED'] = '1'", "return [one()]") + (
        "\n@hookimpl\ndef insights(context): return ['asked before: ' + os.environ['ASKED']]"
    )
    sources = {
        "good": both,
        "silent": GOOD,
        "bad": "raise RuntimeError('no')",
        "late": hook("return [one()]")
        + ("\n@hookimpl\ndef insights(context): raise KeyError('x')"),
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source if source == GOOD else START + source)
    given = {"context": Context({}, settings={"mine": 1})}
    prepared = {
        name: partial(prepare_plugin, name, tmp_path / f"{name}.py", given) for name in sources
    }
    answers = ask_in_turn(prepared, [PROPOSE, {"hook": "insights"}], SECONDS, tmp_path / "logs")
    assert answers["good"][1].value == ["asked before: 1"]
    assert [said.fault for said in answers["silent"]] == [None, None]
    assert len(answers["bad"]) == 1
    assert_says(answers["bad"][0].fault, "RuntimeError: no")
    assert [said.fault is None for said in answers["late"]] == [True, False]
    assert not list_children()


def test_a_fault_names_its_place_in_the_agents_file(ask: Ask) -> None:
    line = START.count("\n") + 3
    assert (
        ask(hook("return [one(value=1 / 0)]")).fault
        == f"ZeroDivisionError: division by zero (bad.py:{line})"
    )


def test_a_file_that_is_not_text(ask: Ask) -> None:
    assert_says(ask(b'name = "\xff"\n').fault, "SyntaxError: .*utf-8")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    prepared = {"bad": partial(prepare_plugin, "bad", tmp_path / "gone.py", {})}
    fault = ask_all(prepared, {"hook": "verify"}, SECONDS, tmp_path)["bad"].fault
    assert_says(fault, "FileNotFoundError: .*gone.py")


GARBAGE = {
    "bytes": b"\x80\x04\x95\xff\xff\xff\xff",
    "bytes in lines": b"\x80\x04\x95\n\n\xff\n",
    "a pickle": b"cos\nsystem\n(S'touch /tmp/never'\ntR.\n",
    "a long length": b"\x7f\xff\xff\xff" * 4,
    "6 MB": b"x" * 6_000_000,
    "an answer of another shape": b'{"number": 1, "value": 5}\n',
    "an answer to something else": b'{"number": 7, "value": []}\n',
    "NaN": b'{"number": 1, "value": [{"expected_gain": NaN}]}\n',
    "two answers": b'{"number": 1, "value": []}\n{"number": 1, "value": []}\n',
    "a deep list": b'{"number": 1, "value": ' + b"[" * 100_000 + b"\n",
    "half an answer": b'{"number": 1, "val',
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_an_agent_writes_to_its_parent_does_no_harm(ask: Ask, what: str) -> None:
    data = (
        f"data = {GARBAGE[what]!r}"
        if len(GARBAGE[what]) < 1000
        else f"data = {GARBAGE[what][:30]!r} * 200_000"
    )
    whole = b"\n" in GARBAGE[what] or len(GARBAGE[what]) > LARGEST_ANSWER
    end = hook("to_every_descriptor(data)", "time.sleep(600)")
    answer = ask(f"{data}\n{end}", seconds=SECONDS if whole else SOON)
    assert_says(
        answer.fault,
        "answered something else|with another shape of value" if whole else "gave no answer",
    )
    assert not Path("/tmp/never").exists()


def test_what_an_agent_prints_goes_to_its_log_and_is_bounded(ask: Ask, tmp_path: Path) -> None:
    shout = hook(
        "os.write(1, b'heard\\n')", "for _ in range(200): print('a' * 99_999)", "return [one()]"
    )
    assert ask(shout).value[0]["key"] == "training.epochs"
    log = tmp_path / "logs" / "bad.log"
    assert log.read_text().startswith("heard\naaa")
    assert log.stat().st_size == LARGEST_LOG


def test_the_log_has_the_traceback(ask: Ask, tmp_path: Path) -> None:
    ask(hook("print('before', flush=True)", "raise KeyError('loss')"))
    said = (tmp_path / "logs" / "bad.log").read_text()
    assert said.startswith("before\n")
    assert "Traceback (most recent call last)" in said and "KeyError: 'loss'" in said


def test_what_an_agent_says_of_itself_is_safe_to_print(ask: Ask) -> None:
    source = "@hookimpl\ndef insights(context): return ['\\x1b[2Jred\\nalert \\ud800' + 'a' * 5000]"
    said = ask(source, {"hook": "insights"}).value
    assert said[0].startswith("[2Jred alert a")
    assert said[0].isprintable() and len(said[0]) == 1000


def test_evidence_is_a_few_lines_of_text(ask: Ask) -> None:
    source = "import itertools\n" + hook(
        "return [one(evidence='run 1'), one(evidence=itertools.count())]"
    )
    assert [one["evidence"] for one in ask(source).value] == [
        ["run 1"],
        [str(number) for number in range(50)],
    ]


def test_no_agent_sees_what_another_did_to_the_context(ask: Ask) -> None:
    spoil = hook(
        "context.settings.clear()", "object.__setattr__(context, 'settings', None)", "return []"
    )
    assert ask(spoil).fault is None


def test_an_agent_has_none_of_its_parents_files(ask: Ask, tmp_path: Path) -> None:
    source = hook(
        "return [one(value=str(path.readlink())) for path in pathlib.Path('/proc/self/fd').iterdir() if path.is_symlink()]"
    )
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        found = [one["value"] for one in ask(source).value]
    assert found
    assert not [name for name in found if str(tmp_path) in name]


def test_an_agent_that_is_verified_names_its_hooks(ask: Ask) -> None:
    source = hook("return []") + "@hookimpl\ndef observe(progress): return None\n"
    assert ask(source, {"hook": "verify"}).value == ["propose", "observe"]


# One process that is asked again and again, as an observer is


OBSERVER = """
from meetara_build.agents import Action, hookimpl
seen = []

@hookimpl
def observe(progress):
    seen.append(progress.step)
    if progress.loss > 5: return {answer}
"""
PROGRESS = {
    "step": 1,
    "steps": 9,
    "epoch": 0,
    "loss": 2.5,
    "validation_loss": None,
    "learning_rate": 1e-3,
    "gradient_norm": 1.0,
    "micro_batch_tokens": 64,
    "completion_tokens": 32,
    "seconds": 1.0,
}


@pytest.fixture
def observer(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    file = tmp_path / "watcher.py"
    file.write_text(OBSERVER.replace("{answer}", request.param))
    asked = Host("watcher", partial(prepare_plugin, "watcher", file, {}), tmp_path / "watcher.log")
    yield asked
    asked.close()


def observed(observer: Host, **changes: Any) -> Answer:
    observer.send({"hook": "observe", "arguments": {"progress": {**PROGRESS, **changes}}})
    return observer.answer(2.0)


@pytest.mark.parametrize("observer", ["Action.STOP"], indirect=True)
def test_an_observer_answers_step_after_step(observer: Host) -> None:
    assert [observed(observer, step=step).value for step in range(20)] == [None] * 20
    assert observed(observer, loss=6.0).value == "stop"


@pytest.mark.parametrize("observer", ["'explode'"], indirect=True)
def test_an_observer_can_ask_for_nothing_but_an_action(observer: Host) -> None:
    assert observed(observer).fault is None
    assert_says(
        observed(observer, loss=6.0).fault,
        "observe gives 'explode'; give None or one of stop, lower_learning_rate",
    )


@pytest.mark.parametrize("observer", ["__import__('os')._exit(5)"], indirect=True)
def test_one_that_has_ended_says_so_whenever_it_is_asked(observer: Host) -> None:
    assert_says(observed(observer, loss=6.0).fault, "exit status 5")
    assert_says(observed(observer).fault, "exit status 5")


@pytest.mark.parametrize("observer", ["__import__('time').sleep(60)"], indirect=True)
def test_one_that_was_stopped_says_so_whenever_it_is_asked(observer: Host) -> None:
    assert_says(observed(observer, loss=6.0).fault, "gave no answer within")
    assert observed(observer).fault is not None
