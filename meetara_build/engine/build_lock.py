"""Two builds of one checkout at once: side by side if no step is to be done by both, else the later
one is refused.

Each running build holds the kernel's lock on a file of its own, which names its owner and its
steps; the kernel frees it when the build ends, however that happens.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from meetara_build.errors import BuildError
from meetara_build.outside import parse_json
from meetara_build.project import CACHE

ANY = "*"
"""Stands for every step: whoever holds it is alone."""


@contextlib.contextmanager
def at_work(project: Path, steps: Iterable[str]) -> Iterator[None]:
    """Nobody else works on these steps meanwhile, nor Snakemake on its own.

    Raises:
        BuildError: another build is at work on some of them; it names its owner.
    """
    ours = set(steps)
    folder = project / CACHE / "builds"
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / str(os.getpid())
    with contextlib.ExitStack() as held:
        with _alone(folder):
            _refuse_overlap(project, ours, list(_others(folder, mine)))
            # Where a build that begins at the same time looks, a file without a lock is a killed
            # build's.
            lock = held.enter_context(mine.open("w"))
            held.callback(mine.unlink, missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
            owner = f"{psutil.Process().username()}, process {os.getpid()}"
            json.dump({"owner": owner, "steps": sorted(ours)}, lock)
            lock.flush()
        yield


def _refuse_overlap(project: Path, ours: set[str], others: Iterable[tuple[str, set[str]]]) -> None:
    running = False
    for owner, theirs in others:
        running = True
        both = ours & theirs or (theirs if ANY in ours else ours if ANY in theirs else set())
        if both:
            raise BuildError(
                f"another build is at work on {_name_owner(both)} ({owner}); wait for it, stop it, or "
                "name other domains"
            )
    if not running:
        _clear_locks(project)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _others(folder: Path, mine: Path) -> Iterator[tuple[str, set[str]]]:
    """Owner and steps of each build that is running; what killed ones left is removed."""
    for path in folder.glob("[0-9]*"):
        if path == mine:
            continue
        with contextlib.suppress(FileNotFoundError), path.open() as other:
            try:
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                content: dict[str, Any] = parse_json(other.read())
                yield content["owner"], set(content["steps"])
            else:
                path.unlink(missing_ok=True)


def _name_owner(steps: Iterable[str]) -> str:
    names = ["this project" if name == ANY else name for name in sorted(steps)]
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _clear_locks(project: Path) -> None:
    """Remove Snakemake's locks if no Snakemake works in this folder any more: a killed one leaves
    them."""
    locks = project / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()):
        return
    owner = _snakemake_here(project)
    if owner is not None:
        raise BuildError(
            f"Snakemake is running here ({owner.info['username']}, process {owner.pid}); wait for "
            "it, or stop it"
        )
    shutil.rmtree(locks, ignore_errors=True)
    # Stage runs put results in place whole: what Snakemake calls incomplete is what the plan says,
    # or done.
    shutil.rmtree(project / ".snakemake" / "incomplete", ignore_errors=True)


def _snakemake_here(project: Path) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline", "cwd", "username"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(project) and "snakemake" in {
            Path(word).name for word in words[:4]
        }:
            return process
    return None
