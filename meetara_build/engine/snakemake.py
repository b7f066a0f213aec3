"""Starts Snakemake on a plan's targets, clears up after builds that were killed, and turns its end into one message."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from meetara_build.config.yaml_files import read_yaml
from meetara_build.engine.job import is_full, shell_limits
from meetara_build.engine.rules import root_name
from meetara_build.errors import BuildError, ConfigError, nearest
from meetara_build.graph import Graph
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

Listener = Callable[[journal.Run], None]


FEW = 8
"""Of so many domains at most all are trained before the first is merged: what takes longest goes first, and no core waits at the end for
one domain's training and all that follows it. Of more, people want to see the first one soon."""


def profile_names(project: Path) -> list[str]:
    """The Snakemake profiles of this project."""
    return sorted(
        {path.parent.name for path in (project / "conf" / "profile").glob("*/config*.yaml")}
    )


def profile_folder(project: Path, name: str) -> Path:
    """The folder of a Snakemake profile of this project.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in (known := profile_names(project)):
        raise ConfigError(f"unknown profile '{name}'{nearest(name, known)}")
    return project / "conf" / "profile" / name


def profile_hardware(project: Path, name: str) -> str | None:
    """The machine that a profile names in its ``config:``, if it does."""
    return _configured(project, name, "hardware")


def profile_prices(project: Path, name: str) -> dict[str, float] | None:
    """US dollars an hour by machine, of the provider that a profile names in its ``config:``; None for one's own machine.

    Raises:
        ConfigError: the provider's file is missing or wrong.
    """
    provider = _configured(project, name, "provider")
    if provider is None:
        return None
    from meetara_build.config.prices import provider_prices

    return provider_prices(project, provider)


def jobs_at_once(project: Path, name: str) -> int:
    """How many threads' worth of jobs a profile runs side by side."""
    content = _profile(project, name)
    asked = content.get("jobs", content.get("cores", "all"))
    return int(asked) if str(asked).isdigit() else os.cpu_count() or 1


def _configured(project: Path, name: str, wanted: str) -> str | None:
    for entry in _entries(project, name):
        key, _, value = entry.partition("=")
        if key == wanted:
            return value
    return None


def _entries(project: Path, name: str) -> list[str]:
    """What a profile has under ``config:``."""
    entries: Any = _profile(project, name).get("config", [])
    return [str(entry) for entry in entries] if isinstance(entries, list) else []


def _handed_on(graph: Graph, profile: str) -> list[str]:
    """The command line's overrides for the processes of a build; a ``--config`` takes the place of the profile's whole."""
    if not graph.overrides.words:
        return []
    return ["--config", *_entries(graph.project, profile), f"overrides={graph.overrides.as_text()}"]


@cache
def _profile(project: Path, name: str) -> dict[str, Any]:
    return read_yaml(next(profile_folder(project, name).glob("config*.yaml")))


def command(graph: Graph, made: Plan, profile: str, arguments: Iterable[str] = ()) -> list[str]:
    """The Snakemake command that does what a plan says; the rules see to it that it is no more and no less."""
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
        *_handed_on(graph, profile),
        *first,
        *arguments,
    ]


def build(
    graph: Graph, made: Plan, profile: str, listen: Listener, arguments: Iterable[str] = ()
) -> None:
    """Do with Snakemake what a plan says; ``listen`` hears of every stage run as it ends.

    Raises:
        BuildError: jobs failed.
    """
    log = graph.root / "logs" / f"snakemake-{os.environ.get(journal.BUILD, 'build')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status, failed = _watched(graph, command(graph, made, profile, arguments), output, listen)
    if status == -signal.SIGINT or status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status != 0:
        raise BuildError(_failure(graph, log, failed))


def _watched(
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
                if run.outcome == "failed":
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
    if not failed:
        lines = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        hint = f"; {limits}" if (limits := shell_limits()) else ""
        return (
            f"Snakemake stopped{hint}:\n  " + "\n  ".join(lines[-8:]) + f"\nThe whole log is {log}"
        )
    parts = []
    for run in failed:
        job = log.parent / run.target / f"{run.stage}.log"
        said = (
            job.read_text(encoding="utf-8", errors="replace").strip()
            if job.exists()
            else run.error or ""
        )
        said = "\n".join(line.removeprefix(OURS) for line in said.splitlines())
        parts.append(said or f"{run.target}/{run.stage}: failed; see {job}")
    count = f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed; what is finished is kept, and a new build goes on from there"
    return "\n".join([*dict.fromkeys(parts), count])
