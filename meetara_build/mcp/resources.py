"""The resources: each section, and each section of each domain."""

import json
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import Completion

from meetara_build.context.store import SECTIONS
from meetara_build.errors import ConfigError, MeetaraError
from meetara_build.mcp.served import SCHEME, Served, uri

JSON = "application/json"
ABOUT = {
    "resource_status": "What jobs use now, what machines have, what it cost.",
    "quality_metrics": "Validation scores, data quality and model performance of the newest results.",
    "training_state": "What is at work, how far it is, and what is proposed.",
    "knowledge_base": "What has worked, which changes help on average, and what solved errors.",
}


def add_resources(server: MCPServer[Any], served: Served) -> None:
    """Add them, and the completion of domains' names."""

    def add(section: str) -> None:
        @server.resource(uri(section), name=section, description=ABOUT[section], mime_type=JSON)
        def whole() -> str:
            return _resource(lambda: served.context.section(section))

        @server.resource(
            f"{SCHEME}://{section}/{{+domain}}",
            name=f"{section} of a domain",
            description=ABOUT[section],
            mime_type=JSON,
        )
        def of_domain(domain: str) -> str:
            return _resource(lambda: served.context.section(section, _find(served, domain)))

    for section in SECTIONS:
        add(section)

    @server.completion()  # type: ignore[untyped-decorator, no-untyped-call]
    async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
        if argument.name not in ("domain", "domains"):
            return None
        values = [name for name in served.graph.domains if name.startswith(argument.value)]
        return Completion(values=values[:100], total=len(values), has_more=len(values) > 100)


def _find(served: Served, domain: str) -> str:
    try:
        return served.domain(domain)
    except ConfigError as error:
        raise ResourceNotFoundError(str(error)) from None


def _resource(read: Callable[[], dict[str, Any]]) -> str:
    try:
        return json.dumps(read(), ensure_ascii=False, indent=1)
    except ResourceError:
        raise
    except MeetaraError as error:
        raise ResourceError(str(error)) from None
