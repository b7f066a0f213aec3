"""The tools that change nothing."""

from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from meetara_build.context import sections
from meetara_build.context.reports import MessageKind, Target
from meetara_build.graph import domain_similarity
from meetara_build.mcp.served import Served, answered, plan_content

READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Limit = Annotated[int, Field(ge=0, le=1000)]


def add_reading_tools(server: MCPServer[Any], served: Served) -> None:
    """Add them."""
    store = served.context.store

    @server.tool(annotations=READS, structured_output=True)
    def similar_domains(
        domain: Target, count: Annotated[int, Field(ge=1, le=50)] = 5
    ) -> dict[str, Any]:
        """The domains most like one, by their records, each with its newest results."""

        def found() -> dict[str, Any]:
            quality = served.context.section("quality_metrics")
            others = domain_similarity.similar_domains(served.graph, served.domain(domain), count)
            return {
                "domain": domain,
                "similar": [
                    {
                        **other._asdict(),
                        "validation": quality["validation_scores"].get(other.domain),
                        "evaluated": quality["model_performance"]["evaluated"].get(other.domain),
                    }
                    for other in others
                ],
            }

        return answered(found)

    @server.tool(annotations=READS, structured_output=True)
    def get_plan(
        domains: Annotated[
            list[Target], Field(max_length=1000, description="All, if none is named.")
        ] = [],  # noqa: B006
    ) -> dict[str, Any]:
        """What a build would do now, why, and what it would take: as `meetara-build plan --json`
        prints it."""
        return answered(lambda: plan_content(served.graph, domains))

    @server.tool(annotations=READS, structured_output=True)
    def read_history(
        domain: Target | None = None,
        stage: Annotated[str | None, Field(max_length=40)] = None,
        build: Annotated[str | None, Field(max_length=200)] = None,
        outcome: Literal["built", "restored", "failed"] | None = None,
        before: Annotated[
            float | None, Field(ge=0, le=1e11, description="Unix time, to read on")
        ] = None,
        limit: Annotated[int, Field(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        """Stage runs, the newest first: outcome, seconds, memory, cost, metrics, error."""

        def found() -> dict[str, Any]:
            of = None if domain is None else served.domain(domain)
            return {
                "runs": sections.read_runs(
                    store,
                    domain=of,
                    stage=stage,
                    build=build,
                    outcome=outcome,
                    before=before,
                    limit=limit,
                )
            }

        return answered(found)

    @server.tool(annotations=READS, structured_output=True)
    def look_back(limit: Annotated[int, Field(ge=1, le=20_000)] = 1000) -> dict[str, Any]:
        """What agents learn from: the newest runs with their recipes and inputs, and messages with
        all answers, oldest first."""
        return answered(lambda: sections.history(store, limit))

    @server.tool(annotations=READS, structured_output=True)
    def read_messages(
        after: Annotated[int, Field(ge=0, le=2**53, description="A position; 0 for all")] = 0,
        about: MessageKind | None = None,
        domain: Target | None = None,
        limit: Limit = 100,
    ) -> dict[str, Any]:
        """Messages of agents after a position, in order, each with how the others answered; and the
        position to go on from."""

        def found() -> dict[str, Any]:
            with store.reading() as connection:
                rows = (
                    sections.messages(
                        connection, after=after, about=about, domain=domain, limit=limit
                    )
                    if limit
                    else []
                )
            return {"messages": rows, "position": store.position()}

        return answered(found)
