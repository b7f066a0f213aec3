"""What every stage run took: one line of JSON each, appended, below the root."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Run(NamedTuple):
    """One stage run. Times in seconds, memory in MB, size in bytes; ``started`` is Unix time."""

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


def machine() -> str:
    """This machine in a word that stays the same between builds."""
    return f"{platform.system()}-{platform.machine()}-{os.cpu_count()}"


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

    Snakemake itself cannot measure jobs that are forked from a warm process: they are not below its shell.
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


def runs(root: Path) -> Iterator[Run]:
    """All recorded runs, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        yield from read(path(root).read_bytes())


def read(text: bytes) -> Iterator[Run]:
    """Runs from their lines; one that a crash cut short is skipped."""
    for line in text.splitlines():
        try:
            yield Run(**json.loads(line))
        except (ValueError, TypeError):
            continue
