"""What every stage run took: one line of JSON each, appended, below the root."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from meetara_build.outside import parse_json

BUILD = "MEETARA_BUILD"
"""Environment variable that holds the name of the build that a job belongs to: when it began, UTC,
and its process."""

TAIL_BYTES = 2_000_000
"""How much of the history estimates are made from: the last five thousand runs or so."""


class Run(NamedTuple):
    """One stage run. Times in seconds, memory in MB, size in bytes; ``started`` is Unix time.

    ``key`` is the work's in the store, ``work`` how much there was to do (see ``plan.estimate``),
    ``build`` the name of the build it belonged to, ``hardware`` the name of the file of the machine
    it was configured for, ``code`` that of the error it failed with. A run that failed has a size
    only where its result is kept: that a model is held back.
    """

    stage: str
    target: str
    fingerprint: str
    outcome: str
    started: float
    seconds: float
    cpu_seconds: float
    stage_cpu_seconds: float
    peak_mb: float
    size: int
    machine: str
    error: str | None = None
    key: str = ""
    work: float = 0.0
    build: str = ""
    hardware: str = ""
    code: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether there is a result of it: one of a run that failed says that a model is held
        back."""
        return self.outcome != "failed" or self.size > 0

    @property
    def ended(self) -> str:
        """The outcome, as people are told it."""
        return "held back" if self.outcome == "failed" and self.is_kept else self.outcome


@cache
def machine() -> str:
    """This machine in a line that stays the same between builds: system, architecture, cores and
    processor."""
    name = "processor"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        name = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
            name,
        )
    return f"{platform.system()}-{platform.machine()}-{os.cpu_count()}-{name.replace(' ', '_')}"


def new_build() -> str:
    """A name for a build that begins now; builds sort by it."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}-{os.getpid()}"


def path(root: Path) -> Path:
    """The file of all runs below a root."""
    return root / "runs.jsonl"


def record(root: Path, run: Run) -> None:
    """Append a run; one write of one line, so that jobs side by side do not mix theirs."""
    root.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(run._asdict(), ensure_ascii=False) + "\n").encode()
    file = os.open(path(root), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def benchmark(run: Run) -> str:
    """A run in the columns of Snakemake's ``benchmark:`` files.

    Snakemake itself cannot measure jobs that are forked from a warm process: they are not below its
    shell.
    """
    minutes, seconds = divmod(int(run.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    columns = {
        "s": f"{run.seconds:.4f}",
        "h:m:s": f"{hours}:{minutes:02}:{seconds:02}",
        "max_rss": f"{run.peak_mb:.2f}",
        "mean_load": f"{100 * run.cpu_seconds / max(run.seconds, 1e-9):.2f}",
        "cpu_time": f"{run.cpu_seconds:.2f}",
    }
    return "\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n"


def runs(root: Path, last_bytes: int | None = None) -> Iterator[Run]:
    """All recorded runs, oldest first, or those in the last so many bytes."""
    with contextlib.suppress(FileNotFoundError), path(root).open("rb") as file:
        if last_bytes is not None:
            file.seek(max(0, os.fstat(file.fileno()).st_size - last_bytes))
        yield from read(file.read())


def read(text: bytes) -> Iterator[Run]:
    """Runs from their lines; one that a crash cut short is skipped."""
    for line in text.splitlines():
        try:
            yield Run(**parse_json(line))
        except (ValueError, TypeError):
            continue


class Build(NamedTuple):
    """One build: the work that the artifacts below the root were the results of when it had ended,
    by step."""

    name: str
    machine: str
    runs: list[Run]
    keys: dict[tuple[str, str], str]


def builds(root: Path) -> list[Build]:
    """All builds, oldest first. What a build left alone is as the builds before it had made it."""
    found: dict[str, list[Run]] = {}
    for run in runs(root):
        found.setdefault(run.build, []).append(run)
    keys: dict[tuple[str, str], str] = {}
    made = []
    for name, members in found.items():
        for run in members:
            if run.key and run.is_kept:
                keys = {**keys, (run.stage, run.target): run.key}
        made.append(Build(name, members[-1].machine, members, keys))
    return made
