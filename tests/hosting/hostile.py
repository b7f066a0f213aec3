"""Agents that mean no good, in files of their own, and what becomes of whoever is asked beside
them."""

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from meetara_build.agents import Context
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import Answer, ask_all

SECONDS = 20.0
SOON = 0.7
"""For those that give no answer however long one waits."""
GOOD = """
from meetara_build.agents import Proposal, hookimpl

@hookimpl
def propose(context):
    yield Proposal("nutrition", "training.epochs", 4, f"it fell till the end, {len(context.settings)}", ("run 1a2b",), 0.03)
"""
START = """
import ctypes, os, pathlib, resource, signal, subprocess, sys, threading, time
from meetara_build.agents import Proposal, hookimpl

def one(key="training.epochs", value=4, **more):
    return Proposal("nutrition", key, value, "it fell till the end", **more)

def note(pid):
    with pathlib.Path(__file__).with_suffix(".pids").open("a") as file:
        print(pid, file=file)

def to_every_descriptor(data):
    for number in range(3, 100):
        try:
            os.write(number, data)
        except OSError:
            pass
"""
ANSWERS = [
    {
        "domain": "nutrition",
        "key": "training.epochs",
        "value": 4,
        "reason": "it fell till the end, 1",
        "evidence": ["run 1a2b"],
        "expected_gain": 0.03,
        "confidence": 0.5,
        "figure": "loss",
    }
]


def hook(*lines: str) -> str:
    """A ``propose`` of these lines."""
    return "@hookimpl\ndef propose(context):\n" + "".join(f"    {line}\n" for line in lines)


def list_children() -> list[psutil.Process]:
    """The processes below this one. Python's own resource tracker is none of an agent's: whatever
    ran before in this session may have started it."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if "multiprocessing.resource_tracker" not in str(one.cmdline())]


PROPOSE = {"hook": "propose"}
Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """``ask(source)``: what becomes of an agent that is asked between two others, which must answer
    as ever."""

    def asked(
        source: str | bytes, request: Mapping[str, Any] = PROPOSE, seconds: float = SECONDS
    ) -> Answer:
        bad, good = tmp_path / "bad.py", tmp_path / "good.py"
        bad.write_bytes(source if isinstance(source, bytes) else (START + source).encode())
        good.write_text(GOOD)
        given = {"context": Context({}, settings={"mine": 1})}
        names = {"bad": bad} if seconds == SOON else {"first": good, "bad": bad, "last": good}
        prepared = {
            name: partial(prepare_plugin, name, file, given) for name, file in names.items()
        }
        began = time.monotonic()
        answers = ask_all(prepared, request, seconds, tmp_path / "logs")
        assert time.monotonic() - began < seconds + 5.0
        assert list(answers) == list(names)
        if request == PROPOSE:
            assert all(answers[name].value == ANSWERS for name in names if name != "bad")
        assert not list_children()
        noted = bad.with_suffix(".pids")
        for pid in filter(None, map(int, noted.read_text().split() if noted.exists() else ())):
            assert not lives(pid), "a process that the agent started goes on"
        if fault := answers["bad"].fault:
            assert (
                "\n" not in fault
                and "Traceback" not in fault
                and fault.isprintable()
                and len(fault) < 1200
            )
            assert answers["bad"].value is None
        return answers["bad"]

    return asked


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def assert_says(fault: str | None, pattern: str) -> None:
    assert fault is not None
    assert re.search(pattern, fault), fault
