"""Reports on their way to the context: a file for each process that has something to say, below the
root.

A line is a report, with an id of its own: what is delivered twice counts once. A file is locked by
who writes it, so that who finds it free knows that nothing will be added. Imports nothing heavy:
every job starts here.
"""

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.outside import parse_json

Report = dict[str, Any]
LONGEST_START = 60.0
"""Seconds from making a file to showing it, at the very most."""


def folder(root: Path) -> Path:
    """Where reports wait, below a root."""
    return root / ".outbox"


class Outbox:
    """Where one process leaves its reports. Whatever happens to them, the process goes on: a full
    disk stops it elsewhere."""

    def __init__(self, root: Path, **about: Any) -> None:
        """``about`` is said in every report."""
        self.root, self.about = root, about
        self.file: int | None = None

    def put(self, kind: str, **fields: Any) -> None:
        """Leave a report; one write of one line."""
        report = {
            "kind": kind,
            "id": os.urandom(16).hex(),
            "time": time.time(),
            **self.about,
            **fields,
        }
        with contextlib.suppress(OSError):
            if self.file is None:
                self.file = _new_file(folder(self.root))
            os.write(
                self.file,
                (json.dumps(finite(report), ensure_ascii=False) + "\n").encode("utf-8", "replace"),
            )

    def close(self) -> None:
        """Say that nothing will be added."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


def finite(value: Any) -> Any:
    """The value without NaN and infinities, which JSON does not have: None in their place."""
    if isinstance(value, dict):
        return {key: finite(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readable(text: str | None) -> str | None:
    """The beginning of a text, without what no database or terminal holds."""
    return (
        None
        if text is None
        else "".join(char for char in text[:8000] if char.isprintable() or char in "\n\t")
    )


class Parcel(NamedTuple):
    """A file of the outbox: its reports, lines that are none, and whether more may follow."""

    path: Path
    reports: list[Report]
    unreadable: list[bytes]
    closed: bool


def parcels(root: Path) -> Iterator[Parcel]:
    """What waits, oldest first."""
    for path in sorted(folder(root).glob("[!.]*.reports")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            closed = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                closed = False
            lines = [(line, _read_report(line)) for line in file.read().split(b"\n") if line]
            reports = [report for _, report in lines if report is not None]
            yield Parcel(path, reports, [line for line, report in lines if report is None], closed)


def find_abandoned(root: Path) -> list[Path]:
    """Files whose process was killed before they could be seen."""
    before = time.time() - LONGEST_START
    found = (path for path in folder(root).glob(".*.reports"))
    return [path for path in found if path.stat().st_mtime < before]


def _read_report(line: bytes) -> Report | None:
    """A line's report; None for what is none, as where a crash or a full disk cut it short."""
    with contextlib.suppress(ValueError):
        report = parse_json(line)
        if isinstance(report, dict):
            return report
    return None


def _new_file(above: Path) -> int:
    """A new file, locked before it can be seen."""
    above.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns()}-{os.getpid()}.reports"
    hidden = above / f".{name}"
    file = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
    fcntl.flock(file, fcntl.LOCK_EX)
    hidden.rename(above / name)
    return file
