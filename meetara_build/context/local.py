"""A context in a database that this process reaches itself."""

from typing import Any

from meetara_build.context import sections
from meetara_build.context.outbox import Report
from meetara_build.context.store import Retention, Store, open_store


class Local:
    """The context in the database at ``url``."""

    def __init__(self, url: str, retention: Retention) -> None:
        self.store: Store = open_store(url, retention)
        self.shown = self.store.shown

    def deliver(self, reports: list[Report]) -> list[str]:
        """Take reports in; the ids of those that were new."""
        return self.store.deliver(reports)

    def section(self, name: str, domain: str | None = None) -> dict[str, Any]:
        """One of the four sections."""
        return sections.section(self.store, name, domain)

    def history(self, limit: int) -> dict[str, list[dict[str, Any]]]:
        """What agents look back on: runs with their recipes, and messages."""
        return sections.history(self.store, limit)

    def position(self) -> int:
        """The number of the last change."""
        return self.store.position()

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
