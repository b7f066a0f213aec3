"""Takes what waits in the outbox to the context, wherever that is."""

import contextlib
import json
from pathlib import Path
from typing import Any, Protocol

from meetara_build.context.outbox import Report, folder, parcels
from meetara_build.errors import ReportError

AT_ONCE = 200
"""Reports in one delivery."""
REFUSED = "refused.txt"


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
    """Delivers from one root. What was delivered from a file that is still written to is not delivered again by this one."""

    def __init__(self, root: Path, context: Context) -> None:
        self.root, self.context = root, context
        self.delivered: dict[Path, int] = {}
        self.waiting = False

    def once(self) -> int:
        """Deliver what waits now; how many reports were new. ``waiting`` says whether anything may follow from open files.

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
            with contextlib.suppress(OSError), (folder(self.root) / REFUSED).open("a", encoding="utf-8") as file:
                file.write(f"{refusal}\n{json.dumps(reports[0], ensure_ascii=False)}\n")
            return 0


def waiting_files(root: Path) -> int:
    """How many files wait."""
    return sum(1 for _ in folder(root).glob("[!.]*.reports"))
