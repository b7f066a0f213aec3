"""Starts Snakemake on a plan's targets, clears up after builds that were killed, and turns its end
into one message."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from meetara_build.engine.job import is_full, shell_limits
from meetara_build.engine.profiles import profile_entries, profile_folder
from meetara_build.engine.rules import root_name
from meetara_build.errors import BuildError, needs
from meetara_build.graph import Graph
from meetara_build.graph.stages import REPORT
from meetara_build.hosting.processes import die_with_parent
from meetara_build.plan import Plan
from meetara_build.project import CACHE
from meetara_build.setup.check import cache_fault
from meetara_build.store import journal

POLL_SECONDS = 0.1
CACHES = "XDG_CACHE_HOME"
OURS = "meetara-build: "
"""How a job's messages begin in its log, and every message of ours."""
STOP_SECONDS = 3.0
"""How long Snakemake may take to end by itself after Ctrl-C, before it and its jobs are killed."""

ENDED = re.compile(r"^ +log: (.+) \(check log file\(s\) for error details\)$", re.MULTILINE)
"""How Snakemake names the log of a job that failed."""

Listener = Callable[[journal.Run], None]


FEW = 8
"""Of so many domains at most all are trained before the first is merged: what takes longest goes
first, and no core waits at the end for one domain's training and all that follows it. Of more,
people want to see the first one soon."""


def _list_handed_on(graph: Graph, profile: str) -> list[str]:
    """The command line's overrides for the processes of a build; a ``--config`` takes the place of
    the profile's whole."""
    if not graph.overrides.words:
        return []
    return [
        "--config",
        *profile_entries(graph.project, profile),
        f"overrides={graph.overrides.as_text()}",
    ]


def command(graph: Graph, made: Plan, profile: str, arguments: Iterable[str] = ()) -> list[str]:
    """The Snakemake command that does what a plan says; the rules see to it that it is no more and
    no less."""
    to_do = [item for item in made.to_do() if item.step.keep]
    read = {given.place for item in to_do for given in item.step.inputs.values()}
    root = root_name(graph)
    trained = [
        f"{root}/{item.step.place.manifest}" for item in to_do if item.step.stage == "adapter"
    ]
    first = ["--prioritize", *trained] if 0 < len(trained) <= FEW else []
    return [
        *(sys.executable, "-m", "snakemake"),
        *(f"{root}/{item.step.place.manifest}" for item in to_do if item.step.place not in read),
        *("--directory", str(graph.project), "--snakefile", str(graph.project / "Snakefile")),
        *("--profile", str(profile_folder(graph.project, profile))),
        *("--resources", f"mem_mb={graph.memory_mb}", f"gpu={graph.gpus}"),
        *([f"slot={graph.slots}"] if graph.slots > 1 else []),
        *_list_handed_on(graph, profile),
        *first,
        *arguments,
    ]


def build(
    graph: Graph, made: Plan, profile: str, listen: Listener, arguments: Iterable[str] = ()
) -> None:
    """Do with Snakemake what a plan says; ``listen`` hears of every stage run as it ends.

    Raises:
        BuildError: jobs failed.
        SetupError: the report is to be made, and what it is drawn with is not installed: said
            before hours of work.
    """
    if any(item.step.stage == REPORT for item in made.to_do()):
        with needs("report"):
            import matplotlib  # noqa: F401
    log = graph.root / "logs" / f"snakemake-{os.environ.get(journal.BUILD, 'build')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status, failed = _watch(graph, command(graph, made, profile, arguments), output, listen)
    if status == -signal.SIGINT or status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status != 0:
        raise BuildError(_failure(graph, log, failed))


def _watch(
    graph: Graph, command: list[str], output: Any, listen: Listener
) -> tuple[int, list[journal.Run]]:
    follow, failed = _Tail(graph.root), []
    process = subprocess.Popen(
        command,
        cwd=graph.project,
        env=_environment(graph),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=die_with_parent,
    )
    interrupted = 0.0
    while True:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            for run in follow.new():
                listen(run)
                if not run.is_kept:
                    failed.append(run)
            if process.returncode is not None:
                return (-signal.SIGINT if interrupted else process.returncode), failed
            if interrupted and time.monotonic() - interrupted > STOP_SECONDS:
                process.kill()
        except KeyboardInterrupt:
            # A terminal sends the signal to Snakemake and its jobs too; what is finished stays.
            interrupted = interrupted or time.monotonic()


def _environment(graph: Graph) -> dict[str, str]:
    """Ours; with a place for caches below the project where the user's own cannot be written."""
    return (
        dict(os.environ)
        if cache_fault() is None
        else {**os.environ, CACHES: str(graph.project / CACHE / "caches")}
    )


class _Tail:
    """The runs recorded since this was made."""

    def __init__(self, root: Path) -> None:
        self.path = journal.path(root)
        self.at = self.path.stat().st_size if self.path.exists() else 0

    def new(self) -> Iterator[journal.Run]:
        """Runs not yet given; a line that is still being written is left for the next time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.at)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self.at += len(whole)
        yield from journal.read(whole)


def _failure(graph: Graph, log: Path, failed: list[journal.Run]) -> str:
    for place in (graph.root, graph.project, graph.store):
        if is_full(place):
            return (
                f"{place}: the disk is full; make room, then build again: what is finished is kept"
            )
    said = [_read_log(graph, run) for run in failed]
    if not failed:
        text = log.read_text(encoding="utf-8", errors="replace")
        logs = [graph.project / name for name in dict.fromkeys(ENDED.findall(text))]
        said = [words for path in logs if (words := _read_words(path))]
    if not said:
        lines = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        hint = f"; {limits}" if (limits := shell_limits()) else ""
        return (
            f"Snakemake stopped{hint}:\n  " + "\n  ".join(lines[-8:]) + f"\nThe whole log is {log}"
        )
    count = (
        f"{len(said)} job{'s' if len(said) > 1 else ''} failed; what is finished is kept, and "
        "a new build goes on from there"
    )
    return "\n".join([*dict.fromkeys(said), count])


def _read_log(graph: Graph, run: journal.Run) -> str:
    """What a run that failed said."""
    path = graph.root / f"{graph.step(run.stage, run.target).log}.log"
    return _read_words(path) or run.error or f"{run.target}/{run.stage}: failed; see {path}"


def _read_words(path: Path) -> str:
    """A job's log without what marks its messages as ours."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return "\n".join(line.removeprefix(OURS) for line in text.splitlines())
