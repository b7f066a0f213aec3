"""The context over MCP: what other programs and assistants may read, call and ask for.

::

    resources   meetara://SECTION, meetara://SECTION/{domain}
    tools       report_metrics report_error propose send_message answer report (these write)
                similar_domains get_plan read_history read_messages
    prompts     review_plan why_failed
"""

import json
import os
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.server.subscriptions import SubscriptionBus
from mcp.types import INVALID_PARAMS, Completion, ToolAnnotations
from pydantic import Field

from meetara_build import similarity
from meetara_build.context import sections
from meetara_build.context.local import Local
from meetara_build.context.remote import REFUSED
from meetara_build.context.reports import Answer, MessageKind, Number, Sender, Share, Target
from meetara_build.context.store import SECTIONS
from meetara_build.context.tokens import WRITE
from meetara_build.errors import ConfigError, MeetaraError, ReportError
from meetara_build.faces.planning import estimated, look, wanted
from meetara_build.graph import Graph, find_project, load
from meetara_build.nearest import nearest
from meetara_build.plan.content import content

SCHEME = "meetara"
JSON = "application/json"
ABOUT = {
    "resource_status": "What jobs use now, what machines have, what it cost.",
    "quality_metrics": "Validation scores, data quality and model performance of the newest results.",
    "training_state": "What is at work, how far it is, and what is proposed.",
    "knowledge_base": "What has worked, which changes help on average, and what solved errors.",
}
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
MOST_REPORTS = 500
LOG_LINES = 60

By = Annotated[Sender | None, Field(description="Who says it; with a token it is the token's name.")]
Id = Annotated[
    str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Of your making; said twice, it counts once.")
]
Limit = Annotated[int, Field(ge=0, le=1000)]


def uri(section: str, domain: str | None = None) -> str:
    """A section's resource."""
    return f"{SCHEME}://{section}" + (f"/{domain}" if domain else "")


class Served:
    """What the server answers from: the context, and the project it belongs to."""

    def __init__(self, context: Local) -> None:
        self.context, self.project = context, find_project()

    @property
    def graph(self) -> Graph:
        """The project as it is now."""
        return load(self.project)

    def domain(self, name: str) -> str:
        """The domain, or base, if there is one of this name.

        Raises:
            ConfigError: there is none.
        """
        known = {target for _, target in self.graph.steps}
        if name not in known and name not in sections.reported(self.context.store):
            raise ConfigError(f"unknown domain '{name}'{nearest(name, sorted(known))}")
        return name


def make_server(
    served: Served, bus: SubscriptionBus, auth: AuthSettings | None = None, verifier: TokenVerifier | None = None
) -> MCPServer[Any]:
    """The server, which tells its subscribers what is published on ``bus``.

    ``verifier`` tells whose token one is; without it nobody is asked for one.
    """
    from importlib.metadata import version

    server: MCPServer[Any] = MCPServer(
        "meetara-build", title="meetara-build", version=version("meetara-build"), auth=auth, token_verifier=verifier,
        instructions="The shared context of a build of many small models: read the sections, see the plan, propose changes.",
        log_level="CRITICAL", subscriptions=bus,
        middleware=[_clearly],
    )  # fmt: skip
    _add_resources(server, served)
    _add_reading_tools(server, served)
    _add_writing_tools(server, served)
    _add_prompts(server, served)
    return server


async def _clearly(ctx: Any, call_next: Any) -> Any:
    """What the SDK and the prompts raise on wrong words of a client is that client's to mend, not an internal error."""
    try:
        return await call_next(ctx)
    except MCPError:
        raise
    except (ValueError, MeetaraError) as error:
        raise MCPError(INVALID_PARAMS, str(error.__cause__ or error)) from None


def _add_resources(server: MCPServer[Any], served: Served) -> None:
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
            return _resource(lambda: served.context.section(section, _found(served, domain)))

    for section in SECTIONS:
        add(section)

    @server.completion()  # type: ignore[untyped-decorator, no-untyped-call]
    async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
        if argument.name not in ("domain", "domains"):
            return None
        values = [name for name in served.graph.domains if name.startswith(argument.value)]
        return Completion(values=values[:100], total=len(values), has_more=len(values) > 100)


def _found(served: Served, domain: str) -> str:
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


def _tool(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except ReportError as error:
        raise ToolError(f"{REFUSED}{error}") from None
    except MeetaraError as error:
        raise ToolError(str(error)) from None


def _add_reading_tools(server: MCPServer[Any], served: Served) -> None:
    store = served.context.store

    @server.tool(annotations=READS, structured_output=True)
    def similar_domains(domain: Target, count: Annotated[int, Field(ge=1, le=50)] = 5) -> dict[str, Any]:
        """The domains most like one, by the words of their records, each with its newest results."""

        def found() -> dict[str, Any]:
            quality = served.context.section("quality_metrics")
            others = similarity.similar_domains(served.graph, served.domain(domain), count)
            return {
                "domain": domain,
                "similar": [
                    {**other._asdict(), "validation": quality["validation_scores"].get(other.domain),
                     "evaluated": quality["model_performance"]["evaluated"].get(other.domain)}
                    for other in others
                ],
            }  # fmt: skip

        return _tool(found)

    @server.tool(annotations=READS, structured_output=True)
    def get_plan(
        domains: Annotated[list[Target], Field(max_length=1000, description="All, if none is named.")] = [],  # noqa: B006
    ) -> dict[str, Any]:
        """What a build would do now, why, and what it would take: as `meetara-build plan --json` prints it."""
        return _tool(lambda: plan_content(served.graph, domains))

    @server.tool(annotations=READS, structured_output=True)
    def read_history(
        domain: Target | None = None,
        stage: Annotated[str | None, Field(max_length=40)] = None,
        build: Annotated[str | None, Field(max_length=200)] = None,
        outcome: Literal["built", "restored", "failed"] | None = None,
        before: Annotated[float | None, Field(ge=0, le=1e11, description="Unix time, to read on")] = None,
        limit: Annotated[int, Field(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        """Stage runs, the newest first: outcome, seconds, memory, cost, metrics, error."""

        def found() -> dict[str, Any]:
            of = None if domain is None else served.domain(domain)
            return {
                "runs": sections.read_runs(
                    store, domain=of, stage=stage, build=build, outcome=outcome, before=before, limit=limit
                )
            }

        return _tool(found)

    @server.tool(annotations=READS, structured_output=True)
    def read_messages(
        after: Annotated[int, Field(ge=0, le=2**53, description="A position; 0 for all")] = 0,
        about: MessageKind | None = None,
        domain: Target | None = None,
        limit: Limit = 100,
    ) -> dict[str, Any]:
        """Messages of agents after a position, in order, each with how the others answered; and the position to go on from."""

        def found() -> dict[str, Any]:
            with store.reading() as connection:
                rows = (
                    sections.messages(connection, after=after, about=about, domain=domain, limit=limit) if limit else []
                )
            return {"messages": rows, "position": store.position()}

        return _tool(found)


def _add_writing_tools(server: MCPServer[Any], served: Served) -> None:
    def write(kind: str, id: str | None, **fields: Any) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            if fields.get("domain") is not None:
                served.domain(fields["domain"])
            report = {"kind": kind, "id": id or os.urandom(16).hex(), "time": time.time(), **fields}
            return {"id": report["id"], "new": bool(served.context.deliver([report]))}

        return _tool(work)

    @server.tool(annotations=WRITES, structured_output=True)
    def report_metrics(
        domain: Target,
        values: Annotated[dict[str, Number], Field(min_length=1, max_length=200, description="Figures by name.")],
        stage: Annotated[str, Field(max_length=200)] = "",
        sender: By = None,
        id: Id = None,
    ) -> dict[str, Any]:
        """Tell what you measured of a domain."""
        return write("metrics", id, domain=domain, stage=stage, values=values, sender=_sender(sender))

    @server.tool(annotations=WRITES, structured_output=True)
    def report_error(
        domain: Target,
        message: Annotated[str, Field(min_length=1, max_length=8000)],
        stage: Annotated[str, Field(max_length=200)] = "",
        solution: Annotated[str | None, Field(max_length=8000, description="What solved it, if that is known.")] = None,
        sender: By = None,
        id: Id = None,
    ) -> dict[str, Any]:
        """Tell what went wrong, and what solved it if you know."""
        from meetara_build.context.lessons import signature

        solved = None if solution is None else time.time()
        return write(
            "error", id, domain=domain, stage=stage, message=message, signature=signature(message), solved=solved,
            solution=solution, sender=_sender(sender),
        )  # fmt: skip

    @server.tool(annotations=WRITES, structured_output=True)
    def propose(
        domain: Target,
        key: Annotated[str, Field(max_length=200, description="A dotted key of the configuration: training.epochs")],
        value: Any,
        reason: Annotated[str, Field(min_length=1, max_length=8000)],
        evidence: Annotated[list[str], Field(max_length=50, description="Ids of runs, and figures.")] = [],  # noqa: B006
        expected_gain: Number | None = None,
        confidence: Share | None = None,
        sender: By = None,
        id: Id = None,
    ) -> dict[str, Any]:
        """Propose a change of a domain's configuration. It changes nothing by itself: people and agents answer."""
        fields = {
            "key": key, "value": value, "reason": reason, "evidence": evidence, "expected_gain": expected_gain,
            "confidence": confidence,
        }  # fmt: skip
        return write("message", id, about="proposal", domain=domain, body=fields, sender=_sender(sender))

    @server.tool(annotations=WRITES, structured_output=True)
    def send_message(
        about: Literal["error", "breakthrough", "note"],
        body: Annotated[dict[str, Any], Field(description="What you say: any JSON.")],
        domain: Target | None = None,
        sender: By = None,
        id: Id = None,
    ) -> dict[str, Any]:
        """Tell the other agents of an error, a breakthrough, or anything else. Proposals have a tool of their own."""
        return write("message", id, about=about, domain=domain, body=body, sender=_sender(sender))

    @server.tool(annotations=WRITES, structured_output=True)
    def answer(
        message: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The message's id.")],
        answer: Answer,
        reason: Annotated[str, Field(max_length=8000)] = "",
        sender: By = None,
        id: Id = None,
    ) -> dict[str, Any]:
        """Answer a message; your last answer counts."""

        def work() -> dict[str, Any]:
            if not sections.has_message(served.context.store, message):
                raise ConfigError(f"there is no message '{message}'; read_messages lists them")
            return write("reply", id, message=message, answer=answer, reason=reason, sender=_sender(sender))

        return _tool(work)

    @server.tool(annotations=WRITES, structured_output=True)
    def report(
        reports: Annotated[list[dict[str, Any]], Field(max_length=MOST_REPORTS, description="As jobs leave them.")],
    ) -> dict[str, Any]:
        """Take in what jobs on another machine left in their outbox. A report that came before counts once."""
        _sender(None)
        return _tool(lambda: {"new": served.context.deliver(reports)})


def _sender(given: str | None) -> str:
    """Who writes: the token's name, where there are tokens.

    Raises:
        ToolError: the token may only read.
    """
    token = get_access_token()
    if token is None:
        return given or "local"
    if WRITE not in token.scopes:
        raise ToolError(f"the token '{token.client_id}' may only read; ask for one made without --read-only")
    return token.client_id


def plan_content(graph: Graph, domains: list[str]) -> dict[str, Any]:
    """A plan as `meetara-build plan --json` prints it."""
    planned = estimated(graph, look(graph, wanted(graph, domains)), "local")
    return content(graph, planned.made, planned.estimates, planned.total, domains, planned.profile)


def _add_prompts(server: MCPServer[Any], served: Served) -> None:
    @server.prompt()
    def review_plan(domains: str = "") -> str:
        """Look over what the next build would do."""
        names = domains.replace(",", " ").split()
        planned = json.dumps(plan_content(served.graph, names), ensure_ascii=False)
        known = json.dumps(served.context.section("knowledge_base"), ensure_ascii=False)
        return (
            "Review this plan of a build of small language models before anything runs. Say for each cause whether its "
            "effect is meant, which steps look wasteful or missing, what it will cost, and what earlier runs say about the "
            f"changes. Name what you would ask the person first.\n\nThe plan:\n{planned}\n\nWhat earlier builds taught:\n{known}"
        )

    @server.prompt()
    def why_failed(domain: str) -> str:
        """Find out why a domain's build failed."""
        name = served.domain(domain)
        store = served.context.store
        failed = sections.read_runs(store, domain=name, outcome="failed", limit=3)
        parts = {
            "Failed runs, the newest first": failed,
            "Earlier runs that went well": sections.read_runs(store, domain=name, outcome="built", limit=10),
            "What is known of its errors": served.context.section("knowledge_base", name)["error_solutions"],
            "The log of the last failure": _log(served.graph, name, failed[0]["stage"] if failed else "adapter"),
        }
        told = "\n\n".join(f"{title}:\n{json.dumps(part, ensure_ascii=False)}" for title, part in parts.items())
        return (
            f"The build of the domain '{name}' failed. From what follows, say the most likely cause, how to be sure of it, and "
            f"the one change of the configuration or the data that you would try first.\n\n{told}"
        )


def _log(graph: Graph, domain: str, stage: str) -> list[str]:
    path = graph.root / "logs" / domain / f"{stage}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if path.is_file() else []
