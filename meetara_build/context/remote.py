"""A context elsewhere: the server of another machine, over MCP."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from meetara_build.context.outbox import Report
from meetara_build.context.reports import check_reports
from meetara_build.errors import ConfigError, ContextError, ReportError, needs
from meetara_build.outside import parse_json

with needs("serve"):
    import anyio
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

SECONDS = 30.0
CODE = "meetara/code"
"""Where a tool's answer, in its ``_meta``, holds the code of the error that it tells of."""
REFUSED = (ReportError.code, ConfigError.code)
"""Codes of what is wrong with a report, which no second try mends."""
JOB_KINDS = ("run", "sample", "progress", "error")
"""What whoever has a token reports as jobs leave it; what agents and people say goes through tools
that put its name to it."""


class Remote:
    """The context that a server at ``url`` (``https://host:port/mcp``) serves; ``token`` opens
    it."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.token, self.shown = url, token, url

    def deliver(self, reports: list[Report]) -> list[str]:
        """Report through the server, under the name of the token where there is one; the ids of
        those that were new."""
        check_reports(reports)
        said = [report for report in reports if report["kind"] in ("message", "reply", "metrics")]
        left = [report for report in reports if report not in said]

        async def call(client: Client) -> Any:
            answers = [await client.call_tool("report", {"reports": left})] if left else []
            return answers + [await client.call_tool(*_tool(report)) for report in said]

        new: list[str] = []
        for answer in self._ask(call):
            found = self._content(answer)
            new += [found["id"]] * found["new"] if "id" in found else found["new"]
        return new

    def _content(self, answer: Any) -> dict[str, Any]:
        """What a tool that reports has answered.

        Raises:
            ReportError: the report was refused.
            ContextError: whatever else is in the way.
        """
        said = "".join(getattr(part, "text", "") for part in answer.content)
        if answer.is_error and (answer.meta or {}).get(CODE) in REFUSED:
            raise ReportError(said)
        if answer.is_error:
            raise ContextError(f"{self.url}: {said}")
        content: dict[str, Any] = answer.structured_content
        return content

    def section(self, name: str, domain: str | None = None) -> dict[str, Any]:
        """One of the four sections."""

        async def read(client: Client) -> Any:
            return await client.read_resource(
                f"meetara://{name}" + (f"/{domain}" if domain else "")
            )

        content: dict[str, Any] = parse_json(self._ask(read).contents[0].text)
        return content

    def history(self, limit: int) -> dict[str, list[dict[str, Any]]]:
        """What agents look back on: runs with their recipes, and messages."""

        async def call(client: Client) -> Any:
            return await client.call_tool("look_back", {"limit": limit})

        answer = self._ask(call)
        if answer.is_error:
            raise ContextError(
                f"{self.url}: {''.join(getattr(part, 'text', '') for part in answer.content)}"
            )
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
                Client(
                    streamable_http_client(self.url, http_client=http), read_timeout_seconds=SECONDS
                ) as client,
            ):
                return await what(client)

        try:
            return anyio.run(asked)
        except Exception as error:
            raise ContextError(f"{self.url}: {_reason(error, statuses)}") from error


def _tool(report: Report) -> tuple[str, dict[str, Any]]:
    """The tool that says a message, a reply or figures, and its arguments."""
    fields = {name: value for name, value in report.items() if name not in ("kind", "time")}
    if report["kind"] == "metrics":
        return "report_metrics", fields
    if report["kind"] == "reply":
        return "answer", fields
    if report["about"] == "proposal":
        own = ("about", "body")
        return "propose", {
            **report["body"],
            **{name: value for name, value in fields.items() if name not in own},
        }
    return "send_message", fields


def _reason(error: BaseException, statuses: list[int]) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if 401 in statuses:  # the SDK does not say
        return (
            "wants a token, or another one; set MEETARA_TOKEN to one that `meetara-build context "
            "token create` made there"
        )
    if statuses:
        return (
            f"{error} (HTTP {statuses[-1]}); is this the URL of `meetara-build context serve`, "
            "with /mcp at its end?"
        )
    return (
        f"cannot be reached ({error or type(error).__name__}); start `meetara-build context serve` "
        "there, or mend context.url"
    )
