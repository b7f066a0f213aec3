"""Starts Snakemake on a plan's targets, clears up after builds that were killed, and turns its end into one message."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from meetara_build import history
from meetara_build.errors import BuildError, ConfigError
from meetara_build.graph import CACHE, Graph
from meetara_build.schema import nearest

POLL_SECONDS = 0.1
Listener = Callable[[history.Run], None]


def profile_folder(project: Path, name: str) -> Path:
    """The folder of a Snakemake profile of this project.

    Raises:
        ConfigError: there is none of this name.
    """
    folder = project / "conf" / "profile" / name
    if not folder.is_dir():
        known = [path.name for path in (project / "conf" / "profile").iterdir() if path.is_dir()]
        raise ConfigError(f"unknown profile '{name}'{nearest(name, known)}")
    return folder


def profile_hardware(project: Path, name: str) -> str | None:
    """The machine that a profile names in its ``config:``, if it does."""
    path = next(profile_folder(project, name).glob("config*.yaml"))
    entries: Any = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("config", [])
    for entry in entries:
        key, _, value = str(entry).partition("=")
        if key == "hardware":
            return value
    return None


def build(graph: Graph, targets: Sequence[str], profile: str, listen: Listener, arguments: Iterable[str] = ()) -> None:
    """Build targets (domains, or ``all_domains``) with Snakemake; ``listen`` hears of every stage run as it ends.

    Raises:
        BuildError: jobs failed, or another build of this project is running.
    """
    log = graph.root / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _only_build(graph.project):
        _clear_locks(graph.project)
        command = [
            *(sys.executable, "-m", "snakemake", *targets, "--directory", str(graph.project)),
            *("--snakefile", str(graph.project / "Snakefile")),
            *("--profile", str(profile_folder(graph.project, profile))),
            *("--resources", f"mem_mb={graph.memory_mb}", f"gpu={graph.gpus}"),
            *arguments,
        ]
        with log.open("wb") as output:
            status, failed = _watched(graph, command, output, listen)
    if status == -signal.SIGINT or status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status != 0:
        raise BuildError(_failure(log, failed))


def _watched(graph: Graph, command: list[str], output: Any, listen: Listener) -> tuple[int, list[history.Run]]:
    process = subprocess.Popen(command, cwd=graph.project, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    follow, failed = _Tail(graph.root), []
    interrupted = False
    while True:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            for run in follow.new():
                listen(run)
                if run.outcome == "failed":
                    failed.append(run)
            if process.returncode is not None:
                return (-signal.SIGINT if interrupted else process.returncode), failed
        except KeyboardInterrupt:
            # Snakemake got the same signal and ends its jobs; what is finished stays.
            interrupted = True


class _Tail:
    """The runs recorded since this was made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen = sum(1 for _ in history.runs(root))

    def new(self) -> Iterator[history.Run]:
        """Runs not yet given."""
        for index, run in enumerate(history.runs(self.root)):
            if index >= self.seen:
                self.seen += 1
                yield run


def _failure(log: Path, failed: list[history.Run]) -> str:
    if not failed:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return "Snakemake stopped:\n  " + "\n  ".join(lines[-8:]) + f"\nThe whole log is {log}"
    parts = []
    for run in failed:
        job = log.parent / run.target / f"{run.stage}.log"
        said = job.read_text(encoding="utf-8", errors="replace").strip() if job.exists() else run.error or ""
        parts.append(said or f"{run.target}/{run.stage}: failed; see {job}")
    count = f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed; what is finished is kept, and a new build goes on from there"
    return "\n".join([*dict.fromkeys(parts), count])


@contextlib.contextmanager
def _only_build(project: Path) -> Iterator[None]:
    """One build of a checkout at a time; the kernel frees the lock of a build that was killed."""
    path = project / CACHE / "build.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            raise BuildError(f"another build is running here ({owner}); wait for it, or stop it") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def _clear_locks(project: Path) -> None:
    """Remove Snakemake's locks if no Snakemake works in this folder any more: a killed one leaves them."""
    locks = project / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()) and not _snakemake_runs(project):
        shutil.rmtree(locks, ignore_errors=True)


def _snakemake_runs(project: Path) -> bool:
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(project) and any("snakemake" in word for word in words[:4]):
            return True
    return False
