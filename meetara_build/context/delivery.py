"""Takes what waits in the outbox to the context, wherever that is."""

import contextlib
import json
from pathlib import Path
from typing import Any, Protocol

from meetara_build.context.outbox import Report, folder, parcels
from meetara_build.errors import ReportError

AT_ONCE = 200
"""Reports in one delivery."""
LONGEST = 1_000_000
"""Characters of a report that are put aside."""


class Context(Protocol):
    """A context, here or elsewhere."""

    shown: str

    def deliver(self, reports: list[Report]) -> list[str]:
        """Take reports in; the ids of those that were new.

        Raises:
            ReportError: one of them is not of its kind's shape.
            ContextError: the context cannot be reached or written.
        """

    def section(self, name: str, domain: str | None = None) -> dict[str, Any]:
        """One of the four sections."""

    def history(self, limit: int) -> dict[str, list[dict[str, Any]]]:
        """The newest runs with their recipes, and messages with their answers, oldest first."""

    def position(self) -> int:
        """A number that grows with each change."""

    def close(self) -> None:
        """Let go of what it holds."""


class Delivery:
    """Delivers from one root. What was delivered from a file that is still written to is not
    delivered again by this one.

    ``refused`` counts what was put aside.
    """

    def __init__(self, root: Path, context: Context) -> None:
        self.root, self.context = root, context
        self.delivered: dict[Path, int] = {}
        self.waiting = False
        self.refused = 0

    def once(self) -> int:
        """Deliver what waits now; how many reports were new. ``waiting`` says whether anything may
        follow from open files.

        Raises:
            ContextError: the context is away; what waits goes on waiting.
        """
        new, self.waiting = 0, False
        for parcel in parcels(self.root):
            done = self.delivered.get(parcel.path, 0)
            for start in range(done, len(parcel.reports), AT_ONCE):
                some = parcel.reports[start : start + AT_ONCE]
                new += self._deliver(some)
                self.delivered[parcel.path] = start + len(some)
            if parcel.closed:
                for line in parcel.unreadable:
                    self._put_aside("is no report", line.decode("utf-8", "replace"))
                parcel.path.unlink(missing_ok=True)
                self.delivered.pop(parcel.path, None)
            else:
                self.waiting = True
        return new

    def _deliver(self, reports: list[Report]) -> int:
        """All at once; one by one where one is refused, which is put aside with the reason."""
        try:
            return len(self.context.deliver(reports))
        except ReportError as refusal:
            if len(reports) > 1:
                return sum(self._deliver([report]) for report in reports)
            self._put_aside(str(refusal), _write_line(reports[0]))
            return 0

    def _put_aside(self, reason: str, line: str) -> None:
        self.refused += 1
        with (
            contextlib.suppress(OSError),
            make_refused_path(self.root).open(
                "a", encoding="utf-8", errors="backslashreplace"
            ) as file,
        ):
            file.write(f"{reason}\n{line[:LONGEST]}\n")


def _write_line(report: Report) -> str:
    try:
        return json.dumps(report, ensure_ascii=False)
    except RecursionError:
        return "it is nested too deep to be written again"


def make_refused_path(root: Path) -> Path:
    """Where reports are put aside that no context takes, each below the reason."""
    return folder(root) / "refused.txt"


def waiting_files(root: Path) -> int:
    """How many files wait."""
    return sum(1 for _ in folder(root).glob("[!.]*.reports"))
