"""Agents that watch a training: who has its way, what each is shown, and what becomes of one that
is at fault."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meetara_build.hosting.observers import Observers
from meetara_build.training.settings import Action, Point, Progress

HEAD = "from meetara_build.agents import Action, hookimpl\n"
OBSERVE = f"{HEAD}@hookimpl\ndef observe(progress):\n    "
FAULTS = {
    "hangs": (f"{OBSERVE}import time; time.sleep(60)", "gave no answer within 1 s and was stopped"),
    "exits": (f"{OBSERVE}import os; os._exit(3)", r"ended without an answer \(exit status 3\)"),
    "raises": (f"{OBSERVE}return 1 / 0", r"ZeroDivisionError: division by zero \(raises.py:4\)"),
    "babbles": (
        f"{OBSERVE}return 'explode'",
        "observe gives 'explode'; give None or one of stop, lower_learning_rate",
    ),
    "lies": (
        f"{OBSERVE}return {{'action': 'stop'}}",
        "observe gives {'action': 'stop'}; give None or one of",
    ),
    "misnamed": (
        f"{HEAD}@hookimpl\ndef watch(progress): pass",
        "the hooks are propose.context., observe.progress.",
    ),
    "elsewhere": (
        f"{HEAD}@hookimpl\ndef propose(context): return []",
        r"has no function observe\(progress\)",
    ),
    "broken": ("import nothing_of_this_name", "ModuleNotFoundError"),
}
Start = Callable[..., Observers]


@pytest.fixture
def lost() -> dict[str, str]:
    return {}


@pytest.fixture
def start(tmp_path: Path, lost: dict[str, str]) -> Iterator[Start]:
    """Start observers from their sources, by name."""
    started = []

    def start(**sources: str) -> Observers:
        files = {name: tmp_path / f"{name}.py" for name in sources}
        for name, source in sources.items():
            files[name].write_text(source)
        started.append(
            Observers(
                files,
                tmp_path / "logs",
                lost.__setitem__,
                seconds=1.0 if "hangs" in sources else 30.0,
            )
        )
        return started[-1]

    yield start
    for observers in started:
        observers.close()


def points(count: int, loss: float = 3.0) -> list[Point]:
    return [(step, loss - 0.1 * step, None, 1e-3) for step in range(1, count + 1)]


def step(number: int, *, fault: str | None = None, curve: list[Point] | None = None) -> Progress:
    shown = points(number) if curve is None else curve
    loss = float("nan") if fault else 1.0
    return Progress(number, 9, 0, loss, None, 1e-3, loss, 512, 100, 0.5, shown, fault)


def test_who_says_nothing_lets_the_training_go_on(start: Start, lost: dict[str, str]) -> None:
    observers = start(quiet=f"{OBSERVE}return None")
    assert [observers(step(number)) for number in range(1, 5)] == [None] * 4
    assert not lost


def test_the_first_by_name_that_wants_something_has_its_way(start: Start) -> None:
    observers = start(
        zeal=f"{OBSERVE}return Action.STOP",
        ardour=f"{OBSERVE}return Action.LOWER_LEARNING_RATE if progress.step == 2 else None",
        apathy=f"{OBSERVE}return None",
    )
    assert [observers(step(number)) for number in (1, 2, 3)] == [
        Action.STOP,
        Action.LOWER_LEARNING_RATE,
        Action.STOP,
    ]


def test_an_agent_sees_every_point_of_the_curve(start: Start) -> None:
    """As it is at the time: also where it joins a training that goes on, or a race begins its
    second run."""
    said = f"{OBSERVE}print(len(progress.curve), sum(point[1] for point in progress.curve)); return None"
    observers = start(bookkeeper=said)
    other = points(2, loss=5.0)
    for shown in (
        points(1),
        points(2),
        points(2),
        points(3),
        other[:1],
        other,
        points(3),
        points(4),
    ):
        observers(step(len(shown), curve=shown))
    log = observers.hosts["bookkeeper"].log
    observers.close()
    seen = [line.split() for line in log.read_text().splitlines()]
    assert [int(count) for count, _ in seen] == [1, 2, 2, 3, 1, 2, 3, 4]
    sums = [sum(point[1] for point in curve) for curve in (points(3), other[:1], other, points(3))]
    assert [float(total) for _, total in seen[3:7]] == pytest.approx(sums)


def test_a_training_that_goes_on_shows_all_of_its_past_at_once(start: Start) -> None:
    observers = start(
        patient=f"{OBSERVE}return Action.STOP if len(progress.curve) == 700 else None"
    )
    assert observers(step(700)) is Action.STOP


def test_faults_are_shown_with_what_is_known_of_them(start: Start) -> None:
    observers = start(
        medic=f"""{OBSERVE}if progress.fault == "not_finite" and progress.loss != progress.loss:
        return Action.ROLL_BACK
    return Action.HALVE_MICRO_BATCH if progress.fault == "out_of_memory" else None"""
    )
    assert observers(step(1)) is None
    assert observers(step(1, fault="not_finite")) is Action.ROLL_BACK
    assert observers(step(1, fault="out_of_memory")) is Action.HALVE_MICRO_BATCH


@pytest.mark.parametrize("name", FAULTS)
def test_one_that_is_at_fault_is_let_go_and_the_others_watch_on(
    name: str, start: Start, lost: dict[str, str]
) -> None:
    source, fault = FAULTS[name]
    observers = start(**{name: source, "well": f"{OBSERVE}return Action.CHECKPOINT"})
    assert [observers(step(number)) for number in (1, 2, 3)] == [Action.CHECKPOINT] * 3
    assert list(lost) == [name]
    assert re.search(fault, lost[name])
