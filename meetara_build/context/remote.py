"""A context elsewhere: the server of another machine, over MCP."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from meetara_build.context.outbox import Report
from meetara_build.errors import ContextError, ReportError
from meetara_build.outside import parse_json

SECONDS = 30.0
REFUSED = "refused: "
"""What the server's tool `report` says first where a report is not of its kind's shape."""


class Remote:
    """The context that a server at ``url`` (``https://host:port/mcp``) serves; ``token`` opens it."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.token, self.shown = url, token, url

    def deliver(self, reports: list[Report]) -> list[str]:
        """Report through the server; the ids of those that were new."""

        async def call(client: Client) -> Any:
            return await client.call_tool("report", {"reports": reports})

        answer = self._ask(call)
        said = "".join(getattr(part, "text", "") for part in answer.content)
        if answer.is_error:
            if REFUSED in said:
                raise ReportError(said.partition(REFUSED)[2])
            raise ContextError(f"{self.url}: {said}")
        new: list[str] = answer.structured_content["new"]
        return new

    def section(self, name: str, domain: str | None = None) -> dict[str, Any]:
        """One of the four sections."""

        async def read(client: Client) -> Any:
            return await client.read_resource(f"meetara://{name}" + (f"/{domain}" if domain else ""))

        content: dict[str, Any] = parse_json(self._ask(read).contents[0].text)
        return content

    def history(self, limit: int) -> dict[str, list[dict[str, Any]]]:
        """What agents look back on: runs with their recipes, and messages."""

        async def call(client: Client) -> Any:
            return await client.call_tool("look_back", {"limit": limit})

        answer = self._ask(call)
        if answer.is_error:
            raise ContextError(f"{self.url}: {''.join(getattr(part, 'text', '') for part in answer.content)}")
        found: dict[str, list[dict[str, Any]]] = answer.structured_content
        return found

    def position(self) -> int:
        """The number of the last change."""

        async def call(client: Client) -> Any:
            return await client.call_tool("read_messages", {"limit": 0})

        answer = self._ask(call)
        return int(answer.structured_content["position"])

    def close(self) -> None:
        """Nothing is held between calls."""

    def _ask(self, what: Callable[[Client], Awaitable[Any]]) -> Any:
        statuses: list[int] = []

        async def note(response: httpx2.Response) -> None:
            statuses.append(response.status_code)

        async def asked() -> Any:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            hooks = {"response": [note]}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=SECONDS, event_hooks=hooks) as http,
                Client(streamable_http_client(self.url, http_client=http), read_timeout_seconds=SECONDS) as client,
            ):
                return await what(client)

        try:
            return anyio.run(asked)
        except Exception as error:
            raise ContextError(f"{self.url}: {_reason(error, statuses)}") from error


def _reason(error: BaseException, statuses: list[int]) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if 401 in statuses:  # the SDK does not say
        return "wants a token, or another one; set MEETARA_TOKEN to one that `meetara-build context token create` made there"
    if statuses:
        return f"{error} (HTTP {statuses[-1]}); is this the URL of `meetara-build context serve`, with /mcp at its end?"
    return f"cannot be reached ({error or type(error).__name__}); start `meetara-build context serve` there, or mend context.url"
