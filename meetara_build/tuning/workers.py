"""The processes of a search: each loads base and records once, and takes one trial after the
other."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.errors import BuildError, ConfigError, MeetaraError
from meetara_build.hosting.processes import die_with_parent
from meetara_build.tuning.space import Space

SPAWN = multiprocessing.get_context("spawn")
"""Fresh processes: the one that starts them has threads, of its progress bar."""


class Task(NamedTuple):
    """All that a worker needs to know.

    Attributes:
        url, study: where trials are kept.
        recipe, inputs: the adapter stage's.
        ends: the time after which no trial begins.
        log: what libraries print goes there.
    """

    url: str
    study: str
    space: Space
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Path]
    reduction_factor: int
    ends: float | None
    log: Path


class Told(NamedTuple):
    """A training that has ended, and what it is called; its loss is None where it was stopped as
    poor."""

    what: str
    number: int
    loss: float | None
    steps: int


def check_workers(workers: int, recipe: Mapping[str, Any]) -> None:
    """Refuse more workers than there are cores for: threads that wait for one another cost more
    than they do.

    Raises:
        ConfigError: there are too many.
    """
    cores, threads = os.cpu_count() or 1, int(recipe["threads"])
    if recipe["device"] == "cpu" and workers > 1 and workers * threads > cores:
        raise ConfigError(
            f"--workers {workers}: with {threads} threads each they need {workers * threads} "
            f"cores, and there are {cores}; use at most {max(1, cores // threads)}"
        )


def take_trials(task: Task, trials: int, workers: int, listen: Callable[[Told], None]) -> None:
    """Have trials taken until there are so many more; each is kept in the study as soon as it ends.

    Raises:
        TrainingError: the current configuration cannot be trained.
        BuildError: a worker ended by itself.
    """
    left = SPAWN.Value("i", trials)
    _run(task, workers, listen, _search, left)


def train_each(
    task: Task, recipes: Sequence[Mapping[str, Any]], listen: Callable[[Told], None]
) -> None:
    """Train adapters by these recipes, in full; each is told by its number here.

    Raises:
        TrainingError: one cannot be trained.
        BuildError: the worker ended by itself.
    """
    _run(task, 1, listen, _train, list(recipes))


def _run(
    task: Task, workers: int, listen: Callable[[Told], None], work: Callable[..., None], given: Any
) -> None:
    """Processes at work until each is done; all end with this one, and with the first that
    fails."""
    at_work: dict[Any, Any] = {}
    try:
        for place in range(workers):
            ours, theirs = SPAWN.Pipe(duplex=False)
            process = SPAWN.Process(
                target=_begin, args=(os.getpid(), theirs, work, task, place, given), daemon=True
            )
            process.start()
            theirs.close()
            at_work[ours] = process
        while at_work:
            for connection in wait(list(at_work)):
                if not _heard(connection, listen, task.log):
                    at_work.pop(connection).join()
    finally:
        for process in at_work.values():
            process.terminate()
            process.join()


def _heard(connection: Any, listen: Callable[[Told], None], log: Path) -> bool:
    """Take one message in; false once the worker is done."""
    try:
        said = connection.recv()
    except EOFError:
        raise BuildError(
            f"a worker ended by itself, perhaps for want of memory: see {log}; try fewer workers"
        ) from None
    if isinstance(said, Exception):
        raise said
    if said is not None:
        listen(said)
    return said is not None


def _begin(
    parent: int,
    connection: Connection,
    work: Callable[..., None],
    task: Task,
    place: int,
    given: Any,
) -> None:
    """What a worker's process does, from beginning to end."""
    die_with_parent(parent)
    # Ctrl-C reaches the whole group, but only who started this one ends it: once, so that its trial
    # is told as failed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            _print_to(task.log)
            work(task, place, given, connection)
            connection.send(None)
        except MeetaraError as fault:
            connection.send(fault)
        except Exception as fault:
            traceback.print_exc()
            connection.send(
                BuildError(
                    f"unexpected {type(fault).__name__}: {fault}; {task.log} says more: please "
                    "report it"
                )
            )


def _search(task: Task, place: int, left: "Synchronized[int]", connection: Connection) -> None:
    from meetara_build.tuning import search
    from meetara_build.tuning.trainer import Trainer

    with contextlib.closing(Trainer(task.recipe, task.inputs, task.log.with_suffix(""))) as trainer:
        study = search.resume_study(
            task.url, task.study, task.recipe["seed"], place, task.reduction_factor
        )
        objective = search.Objective(trainer, task.space, task.recipe)
        while (task.ends is None or time.time() < task.ends) and _claim(left):
            study.optimize(
                objective,
                n_trials=1,
                callbacks=[lambda _, trial: connection.send(_make_told(trial))],
            )


def _train(
    task: Task, place: int, recipes: Sequence[Mapping[str, Any]], connection: Connection
) -> None:
    from meetara_build.tuning.trainer import Trainer

    with contextlib.closing(Trainer(task.recipe, task.inputs, task.log.with_suffix(""))) as trainer:
        for number, recipe in enumerate(recipes):
            history = trainer.train(recipe)
            connection.send(Told("", number, history.validation_after, len(history.curve)))


def _make_told(trial: Any) -> Told:
    from meetara_build.tuning.studies import STEPS, in_full

    loss = trial.value if in_full(trial) else None
    return Told(f"trial {trial.number}", trial.number, loss, trial.user_attrs.get(STEPS, 0))


def _claim(left: "Synchronized[int]") -> bool:
    with left.get_lock():
        left.value -= 1
        return left.value >= 0


def _print_to(log: Path) -> None:
    """What libraries print goes into a file, not between the lines of the command."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
