"""What the server answers from."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp.types import CallToolResult, TextContent

from meetara_build.context import sections
from meetara_build.context.local import Local
from meetara_build.context.remote import CODE
from meetara_build.context.store import SECTIONS
from meetara_build.engine.planning import add_estimates, look, select_domains
from meetara_build.errors import ConfigError, MeetaraError, nearest
from meetara_build.graph import Graph, load
from meetara_build.plan.content import content

SCHEME = "meetara"
FRESH_SECONDS = 1.0


def uri(section: str, domain: str | None = None) -> str:
    """A section's resource."""
    return f"{SCHEME}://{section}" + (f"/{domain}" if domain else "")


class Served:
    """What the server answers from: the context, and the project it belongs to."""

    def __init__(self, context: Local, project: Path) -> None:
        self.context, self.project = context, project
        self.loaded: Graph | None = None
        self.loaded_at = 0.0

    @property
    def graph(self) -> Graph:
        """The project as it was at most a second ago: to look at it takes as long as several
        reports do."""
        if self.loaded is None or time.monotonic() - self.loaded_at > FRESH_SECONDS:
            self.loaded, self.loaded_at = load(self.project), time.monotonic()
        return self.loaded

    def domain(self, name: str) -> str:
        """The domain, or base, if there is one of this name.

        Raises:
            ConfigError: there is none.
        """
        known = {target for _, target in self.graph.steps}
        if name not in known and name not in sections.list_reported(self.context.store):
            raise ConfigError(f"unknown domain '{name}'{nearest(name, sorted(known))}")
        return name

    def resource(self, wanted: str) -> str:
        """A section's URI, if it is one.

        Raises:
            ConfigError: it is none, or there is no such domain.
        """
        scheme, _, rest = wanted.partition("://")
        section, _, domain = rest.partition("/")
        if scheme != SCHEME or section not in SECTIONS:
            raise ConfigError(f"unknown resource '{wanted[:200]}'; resources/list names them")
        return uri(section, self.domain(domain) if domain else None)


def plan_content(graph: Graph, domains: list[str]) -> dict[str, Any]:
    """A plan as `meetara-build plan --json` prints it."""
    planned = add_estimates(graph, look(graph, select_domains(graph, domains)), "local")
    return content(graph, planned.made, planned.estimates, planned.total, domains, planned.profile)


def answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a tool answers; where the work is refused, the message, with the error's code in
    ``_meta``."""
    try:
        return work()
    except MeetaraError as error:
        said = TextContent(type="text", text=str(error))
        # The SDK hands such an answer on as it is.
        return CallToolResult(  # type: ignore[return-value]
            content=[said], is_error=True, _meta={CODE: error.code}
        )
