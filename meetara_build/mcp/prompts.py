"""The prompts: what to ask an assistant, with what it needs to answer."""

import json
from typing import Any

from mcp.server import MCPServer

from meetara_build.context import sections
from meetara_build.graph import Graph
from meetara_build.mcp.served import Served, plan_content

LOG_LINES = 60


def add_prompts(server: MCPServer[Any], served: Served) -> None:
    """Add them."""

    @server.prompt()
    def review_plan(domains: str = "") -> str:
        """Look over what the next build would do."""
        names = domains.replace(",", " ").split()
        planned = json.dumps(plan_content(served.graph, names), ensure_ascii=False)
        known = json.dumps(served.context.section("knowledge_base"), ensure_ascii=False)
        return (
            "Review this plan of a build of small language models before anything runs. Say for "
            "each cause whether its effect is meant, which steps look wasteful or missing, what "
            "it will cost, and what earlier runs say about the changes. Name what you would ask "
            f"the person first.\n\nThe plan:\n{planned}\n\nWhat earlier builds taught:\n{known}"
        )

    @server.prompt()
    def why_failed(domain: str) -> str:
        """Find out why a domain's build failed."""
        name = served.domain(domain)
        store = served.context.store
        failed = sections.read_runs(store, domain=name, outcome="failed", limit=3)
        parts = {
            "Failed runs, the newest first": failed,
            "Earlier runs that went well": sections.read_runs(
                store, domain=name, outcome="built", limit=10
            ),
            "What is known of its errors": served.context.section("knowledge_base", name)[
                "error_solutions"
            ],
            "The log of the last failure": _log(
                served.graph, name, failed[0]["stage"] if failed else "adapter"
            ),
        }
        told = "\n\n".join(
            f"{title}:\n{json.dumps(part, ensure_ascii=False)}" for title, part in parts.items()
        )
        return (
            f"The build of the domain '{name}' failed. From what follows, say the most likely "
            "cause, how to be sure of it, and the one change of the configuration or the data "
            f"that you would try first.\n\n{told}"
        )


def _log(graph: Graph, domain: str, stage: str) -> list[str]:
    """The end of a job's log; nothing where names that were reported lead out of the folder of
    logs."""
    folder = (graph.root / "logs").resolve()
    path = (folder / domain / f"{stage}.log").resolve()
    if not path.is_relative_to(folder):
        return []
    return (
        path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        if path.is_file()
        else []
    )
