"""Agents that are MCP servers, in any language: a command that is started here, or a URL.

The server has a tool ``propose`` that takes ``{"context": …}`` and gives the structured content
``{"proposals": […]}``, a tool ``insights`` that gives ``{"insights": ["…"]}``, or both. The context
is ``snapshot.as_json``; a proposal has the fields of ``suggestion.Proposal``. The client runs in an
agent's process like any plugin, so that what the server floods, leaves behind or keeps to itself
ends with that; and nothing it says is believed before it has been looked at.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from typing import Any

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Context, as_json
from meetara_build.errors import AgentError, needs
from meetara_build.hosting.hooks import make_plain
from meetara_build.hosting.supervisor import Work
from meetara_build.project import find_project

TOOLS = {"propose": "proposals", "insights": "insights"}
"""By tool, what its structured content holds."""
MOST_RUNS = 2000
"""The newest; with more, a context becomes too large to send around."""
KNOWN = {field.name for field in fields(Proposal)}
NEEDED = {field.name for field in fields(Proposal) if field.default is MISSING}


def prepare_external(name: str, spec: Mapping[str, Any], context: Context) -> Work:
    """What makes an external agent's process call the tool that a request names. ``spec`` is its
    ``agents.external`` entry."""
    with needs("serve"):
        import anyio
        import mcp  # noqa: F401 - takes a second, before any clock starts

    def work(request: Any) -> Any:
        started = time.monotonic()
        # The SDK would ask the server politely, for seconds.
        timer = threading.Timer(spec["seconds"], _end_server)
        timer.start()
        try:
            return anyio.run(_ask, spec, request["hook"], context)
        except BaseException as error:
            late = time.monotonic() - started >= spec["seconds"]
            raise AgentError(
                f"agents.external.{name}: {_late(spec) if late else _reason(spec, error)}"
            ) from error
        finally:
            timer.cancel()

    return work


async def _ask(spec: Mapping[str, Any], hook: str, context: Context) -> Any:
    """Start the server or connect to it, and have one answer."""
    import anyio
    from mcp import Client

    with anyio.fail_after(spec["seconds"]):
        async with Client(_server(spec)) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            found = [tool for tool in TOOLS if tool in listed]
            if not found:
                raise AgentError(f"has none of the tools {', '.join(TOOLS)}; see docs/how-to.md")
            if hook == "verify":
                return found
            if hook not in found:
                return None
            return _understood(hook, await client.call_tool(hook, {"context": _call_tool(context)}))


def _server(spec: Mapping[str, Any]) -> Any:
    """What the SDK connects to."""
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    if spec["url"] is not None:
        return streamable_http_client(spec["url"])
    command, *arguments = spec["command"]
    server = StdioServerParameters(command=command, args=arguments, cwd=find_project())
    return stdio_client(server, errlog=sys.stderr)  # this process's, which is its log


def _end_server() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _call_tool(context: Context) -> Any:
    """A context as JSON values."""
    return json.loads(
        json.dumps(as_json(replace(context, runs=context.runs[-MOST_RUNS:])), default=_value)
    )


def _value(held: Any) -> Any:
    if is_dataclass(held) and not isinstance(held, type):
        return asdict(held)
    return dict(held) if isinstance(held, Mapping) else str(held)


def _understood(tool: str, result: Any) -> Any:
    """What a tool answered.

    Raises:
        AgentError: that is nothing it may answer.
    """
    if result.is_error:
        said = "".join(getattr(part, "text", "") for part in result.content)
        raise AgentError(
            f"its tool '{tool}' failed ({said or 'it does not say why'}); mend the agent"
        )
    what = TOOLS[tool]
    content = result.structured_content
    if (
        not isinstance(content, dict)
        or set(content) != {what}
        or not isinstance(content[what], list)
    ):
        raise AgentError(
            f"its tool '{tool}' must answer with the structured content {{\"{what}\": […]}}, and "
            "nothing else"
        )
    return make_plain(tool, map(_proposal, content[what]) if tool == "propose" else content[what])


def _proposal(content: Any) -> Proposal:
    if not isinstance(content, dict):
        raise AgentError(
            f"proposes {content!r:.60}; give an object with {', '.join(sorted(NEEDED))}"
        )
    if unknown := sorted(set(content) - KNOWN):
        raise AgentError(
            f"a proposal has the unknown field '{unknown[0]:.60}'; known: "
            f"{', '.join(sorted(KNOWN))}"
        )
    if missing := sorted(NEEDED - set(content)):
        raise AgentError(f"a proposal lacks {', '.join(missing)}; add it")
    if not isinstance(content.get("evidence", []), list):
        raise AgentError("a proposal's evidence is no list; give a list of texts")
    return Proposal(**content)


def _late(spec: Mapping[str, Any]) -> str:
    return (
        f"gave no answer within {spec['seconds']:g} s; raise agents.external.NAME.seconds, or mend "
        "the agent"
    )


def _reason(spec: Mapping[str, Any], error: BaseException) -> str:
    """What went wrong, and what to do."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AgentError):
        return str(error)
    if isinstance(error, TimeoutError):
        return _late(spec)
    said = f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
    if spec["url"] is not None:
        return (
            f"{spec['url']} does not answer as an MCP server ({said}); start it, or mend the url "
            "in conf/build.yaml"
        )
    if isinstance(error, OSError):
        return (
            f"'{spec['command'][0]}' cannot be started ({said}); mend the command in "
            "conf/build.yaml"
        )
    return (
        f"{' '.join(spec['command'])} does not answer as an MCP server ({said}); try it by hand, "
        "and mend it"
    )
