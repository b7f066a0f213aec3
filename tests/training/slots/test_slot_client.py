"""A trainer that is a process of its own: begun by who needs it, and again where it is lost."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import until

from meetara_build import sockets
from meetara_build.errors import BuildError
from meetara_build.training.settings import Progress
from meetara_build.training.slots import client
from meetara_build.training.slots.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
MODULE = "meetara_build.training.slots.trainer"


def find_trainers(house: Any) -> list[psutil.Process]:
    """The processes that serve at the house's socket."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if MODULE in words and str(house.socket) in words:
            found.append(process)
    return found


@pytest.fixture
def processes(house: Any) -> Iterator[Any]:
    """The house, whose trainers are ended."""
    yield house
    for process in find_trainers(house):
        process.kill()


def test_a_trainer_that_is_lost_is_begun_anew_and_nothing_is_lost_with_it(
    processes: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed before one step, stopped before another: it is asked again."""
    house, seen = processes, set[int]()
    monkeypatch.setattr(client, "ANSWER_SECONDS", 3.0)

    def disturb(progress: Progress) -> None:
        (process,) = find_trainers(house)
        seen.add(process.pid)
        if progress.step in (2, 4):
            process.send_signal(signal.SIGKILL if progress.step == 2 else signal.SIGSTOP)

    disturbed = house.train("nutrition", observe=disturb)
    assert len(seen) == 3
    said = capfd.readouterr().err
    assert "the resident trainer was ended; another is begun" in said
    assert "the resident trainer gave no answer in time; another is begun" in said
    assert len(find_trainers(house)) == 1, "the one that hung is gone"
    for process in find_trainers(house):
        process.kill()
        process.wait()
    house.start()
    assert house.train("nutrition").digest == disturbed.digest


def test_a_trainer_that_is_lost_twice_is_an_error_with_its_log(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_pass(trainer: Any) -> None:
        def fail(works: Any) -> None:
            house.socket.unlink()
            trainer.listener.close()
            for guest in list(trainer.guests):
                trainer._forget(guest)
            raise SystemExit  # of the thread

        monkeypatch.setattr(trainer.company, "compute", fail)

    house.start(break_pass)
    monkeypatch.setattr(sockets, "start_once", lambda *_: (_ for _ in ()).throw(OSError()))
    with pytest.raises(BuildError, match=r"was ended, twice; build again, or set slots to 1 .*log"):
        house.train("nutrition")


def test_a_trainer_that_cannot_start_says_why(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(BuildError, match=r"cannot start \(.+\); set slots to 1 .*its log is"):
        house.train("nutrition")


def test_a_trainer_ends_when_nobody_has_been_there_for_a_while(house: Any) -> None:
    listener = sockets.listen(house.socket)
    trainer, begun = Trainer(listener), time.monotonic()
    trainer.serve(0.2)
    assert 0.2 <= time.monotonic() - begun < 5


def test_another_base_another_shape_and_another_environment_have_another_trainer(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {house.socket}
    base = house.base
    names |= {
        client.find_socket(changed, "weights")
        for changed in (
            base,
            base._replace(slots=2),
            base._replace(tokens=128),
            base._replace(precision="bfloat16"),
            base._replace(lora={**base.lora, "rank": 8}),
        )
    }
    names.add(client.find_socket(base, "other weights"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    names.add(client.find_socket(base, "weights"))
    assert len(names) == 8


def test_the_process_is_gone_once_its_last_training_is(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, plain = processes, sockets.start_once

    def start_impatient(path: Path, command: list[str], environment: dict[str, str]) -> bool:
        python, _, module, *given = command
        code = f"import {module} as trainer; trainer.IDLE_SECONDS = 1.0; trainer.main()"
        return plain(path, [python, "-c", code, *given, "-m", module], environment)

    monkeypatch.setattr(sockets, "start_once", start_impatient)
    house.train("nutrition")
    assert len(find_trainers(house)) == 1
    until(lambda: not find_trainers(house), 60)
    assert not house.socket.exists()
