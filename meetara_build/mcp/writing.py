"""The tools that report."""

import os
import time
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BeforeValidator, Field

from meetara_build.context import sections
from meetara_build.context.lessons import signature
from meetara_build.context.remote import JOB_KINDS
from meetara_build.context.reports import Answer, AnyStage, Number, Share, Target
from meetara_build.context.tokens import WRITE
from meetara_build.errors import ConfigError, ReportError
from meetara_build.mcp.served import Served, answered
from meetara_build.outside import SPEAKER

WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
MOST_REPORTS = 500


def _text(given: Any) -> Any:
    """Nothing said is no text. Types of text alone: the SDK reads for JSON what else an argument
    may be."""
    return "" if given is None else given


By = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=f"^({SPEAKER})?$", description="Who says it; with a token, the token's name."),
]
Id = Annotated[
    str,
    BeforeValidator(_text),
    Field(
        pattern=r"^[A-Za-z0-9_-]{0,64}$", description="Of your making; said twice, it counts once."
    ),
]


def add_writing_tools(server: MCPServer[Any], served: Served) -> None:
    """Add them."""

    def write(kind: str, id: str, **fields: Any) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            if fields.get("domain") is not None:
                served.domain(fields["domain"])
            report = {"kind": kind, "id": id or os.urandom(16).hex(), "time": time.time(), **fields}
            return {"id": report["id"], "new": bool(served.context.deliver([report]))}

        return answered(work)

    @server.tool(annotations=WRITES, structured_output=True)
    def report_metrics(
        domain: Target,
        values: Annotated[
            dict[str, Number], Field(min_length=1, max_length=200, description="Figures by name.")
        ],
        stage: AnyStage = "",
        sender: By = "",
        id: Id = "",
    ) -> dict[str, Any]:
        """Tell what you measured of a domain."""
        return write(
            "metrics", id, domain=domain, stage=stage, values=values, sender=_sender(sender)
        )

    @server.tool(annotations=WRITES, structured_output=True)
    def report_error(
        domain: Target,
        message: Annotated[str, Field(min_length=1, max_length=8000)],
        stage: AnyStage = "",
        solution: Annotated[
            str,
            BeforeValidator(_text),
            Field(max_length=8000, description="What solved it, if that is known."),
        ] = "",
        sender: By = "",
        id: Id = "",
    ) -> dict[str, Any]:
        """Tell what went wrong, and what solved it if you know."""
        solved = time.time() if solution else None
        return write(
            "error",
            id,
            domain=domain,
            stage=stage,
            message=message,
            signature=signature(message),
            solved=solved,
            solution=solution or None,
            sender=_sender(sender),
        )

    @server.tool(annotations=WRITES, structured_output=True)
    def propose(
        domain: Target,
        key: Annotated[
            str,
            Field(max_length=200, description="A dotted key of the configuration: training.epochs"),
        ],
        value: Any,
        reason: Annotated[str, Field(min_length=1, max_length=8000)],
        evidence: Annotated[
            list[str], Field(max_length=50, description="Ids of runs, and figures.")
        ] = [],  # noqa: B006
        expected_gain: Number | None = None,
        confidence: Share | None = None,
        figure: Annotated[
            Literal["loss", "seconds", "size", "memory"],
            Field(description="What it promises less of."),
        ] = "loss",
        sender: By = "",
        id: Id = "",
    ) -> dict[str, Any]:
        """Propose a change of a domain's configuration. It changes nothing by itself: people and
        agents answer."""
        fields = {
            "key": key,
            "value": value,
            "reason": reason,
            "evidence": evidence,
            "expected_gain": expected_gain,
            "confidence": confidence,
            "figure": figure,
        }
        return write(
            "message", id, about="proposal", domain=domain, body=fields, sender=_sender(sender)
        )

    @server.tool(annotations=WRITES, structured_output=True)
    def send_message(
        about: Literal["error", "breakthrough", "note"],
        body: Annotated[dict[str, Any], Field(description="What you say: any JSON.")],
        domain: Target | None = None,
        sender: By = "",
        id: Id = "",
    ) -> dict[str, Any]:
        """Tell the other agents of an error, a breakthrough, or anything else. Proposals have a
        tool of their own."""
        return write("message", id, about=about, domain=domain, body=body, sender=_sender(sender))

    @server.tool(annotations=WRITES, structured_output=True)
    def answer(
        message: Annotated[
            str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The message's id.")
        ],
        answer: Answer,
        reason: Annotated[str, Field(max_length=8000)] = "",
        sender: By = "",
        id: Id = "",
    ) -> dict[str, Any]:
        """Answer a message; your last answer counts."""

        def work() -> dict[str, Any]:
            if not sections.has_message(served.context.store, message):
                raise ConfigError(f"there is no message '{message}'; read_messages lists them")
            return write(
                "reply", id, message=message, answer=answer, reason=reason, sender=_sender(sender)
            )

        return answered(work)

    @server.tool(annotations=WRITES, structured_output=True)
    def report(
        reports: Annotated[
            list[dict[str, Any]], Field(max_length=MOST_REPORTS, description="As jobs leave them.")
        ],
    ) -> dict[str, Any]:
        """Take in what jobs on another machine left in their outbox. A report that came before
        counts once.

        With a token: runs, samples, progress and errors.
        """
        name = _sender("")

        def work() -> dict[str, Any]:
            by_token = get_access_token() is not None
            given = [_of_job(report, name) for report in reports] if by_token else reports
            return {"new": served.context.deliver(given)}

        return answered(work)


def _of_job(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A report as whoever has this token may make it: what is said by somebody is said by them.

    Raises:
        ReportError: it is of a kind that has a tool of its own.
    """
    kind = report.get("kind")
    if kind not in JOB_KINDS:
        raise ReportError(
            f"a token reports {', '.join(JOB_KINDS)}, not {str(kind)[:80]!r}; "
            "use report_metrics, propose, send_message or answer"
        )
    return {**report, "sender": name} if kind == "error" else report


def _sender(given: str) -> str:
    """Who writes: the token's name, where there are tokens.

    Raises:
        ToolError: the token may only read.
    """
    token = get_access_token()
    if token is None:
        return given or "local"
    if WRITE not in token.scopes:
        raise ToolError(
            f"the token '{token.client_id}' may only read; ask for one made without --read-only"
        )
    return token.client_id
