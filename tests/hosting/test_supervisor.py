"""Nothing that an agent starts outlives it, and no agent outlives who asked it."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from commands import until
from hostile import SOON, START, Ask, assert_says, hook, list_children, lives

from meetara_build.hosting import host
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import ask_all

LEFT_BEHIND = """
def leave(*how):
    child = os.fork()
    if not child:
        for step in how:
            step()
        note(os.getpid())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    while not pathlib.Path(__file__).with_suffix(".pids").exists():
        time.sleep(0.01)

def fork_again():
    if os.fork():
        os._exit(0)

"""


@pytest.mark.parametrize(
    "how", ["", "os.setsid", "os.setsid, fork_again", "os.setpgrp, fork_again"]
)
@pytest.mark.parametrize("end", ["return [one()]", "os._exit(0)"])
def test_what_an_agent_started_ends_with_it(ask: Ask, how: str, end: str) -> None:
    answer = ask(LEFT_BEHIND + hook(f"leave({how})", end))
    assert (answer.fault is None) == end.startswith("return")


@pytest.mark.parametrize(
    "end", ["raise ValueError('no')", "time.sleep(600)", "os.kill(os.getpid(), signal.SIGSTOP)"]
)
def test_it_ends_too_where_the_agent_is_stopped(ask: Ask, end: str) -> None:
    assert ask(LEFT_BEHIND + hook("leave(os.setsid, fork_again)", end), seconds=SOON).fault


def test_programs_that_an_agent_started_end_with_it(ask: Ask, tmp_path: Path) -> None:
    start = "note(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    assert ask(hook(start, "return [one()]")).value[0]["value"] == 4
    assert (tmp_path / "bad.pids").exists()


def test_an_agent_that_stops_its_keeper_is_ended_all_the_same(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "PATIENCE_SECONDS", 0.5)
    stop = hook(
        "note(os.getppid())",
        "note(os.getpid())",
        "os.kill(os.getppid(), signal.SIGSTOP)",
        "time.sleep(60)",
    )
    assert_says(ask(stop, seconds=SOON).fault, "gave no answer within")


def test_one_that_forks_and_ends_without_end_is_caught(ask: Ask, tmp_path: Path) -> None:
    loop = "while time.monotonic() < end:"
    chain = hook(
        "end = time.monotonic() + 20",
        loop,
        "    note(0)",
        "    if os.fork(): os._exit(0)",
        "    time.sleep(0.001)",
    )
    assert_says(ask(chain).fault, "ended without an answer")
    hops = (tmp_path / "bad.pids").stat().st_size
    time.sleep(0.1)
    assert (tmp_path / "bad.pids").stat().st_size == hops


# Whoever asks may end too


def test_an_interrupted_round_leaves_no_agent_at_work(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(START + LEFT_BEHIND + hook("leave(os.setsid, fork_again)", "time.sleep(600)"))
    prepared = {name: partial(prepare_plugin, name, slow, {"context": None}) for name in "abcdef"}

    def interrupt() -> None:
        until(slow.with_suffix(".pids").exists, 30)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_all(prepared, {"hook": "propose"}, 60, tmp_path)
    assert time.monotonic() - began < 40
    interrupter.join()
    assert not list_children()
    assert not any(lives(int(pid)) for pid in slow.with_suffix(".pids").read_text().split())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_who_asks_is_the_end_of_its_agents(
    tmp_path: Path, number: signal.Signals
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        START
        + LEFT_BEHIND
        + hook("leave(os.setsid, fork_again)", "note(os.getpid())", "time.sleep(600)")
    )
    words = (
        "from functools import partial; from pathlib import Path; from meetara_build.hosting.host import ask_all\n"
        "from meetara_build.hosting.hooks import prepare_plugin\n"
        f"file = Path({str(slow)!r})\n"
        "ask_all({name: partial(prepare_plugin, name, file, {'context': None}) for name in 'ab'}, {'hook': 'propose'}, 60, file.parent)"
    )
    with subprocess.Popen([sys.executable, "-c", words]) as asking:
        pids = slow.with_suffix(".pids")
        until(lambda: pids.exists() and len(pids.read_text().split()) >= 3, 10)
        asking.send_signal(number)
    until(lambda: not any(lives(int(pid)) for pid in pids.read_text().split()), 5)
