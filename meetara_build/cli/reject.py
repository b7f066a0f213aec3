"""Refuse proposals; they are not made again."""

from typing import Annotated

import typer

from meetara_build.cli.completion import complete_proposals
from meetara_build.cli.output import amount, out
from meetara_build.engine.planning import project_graph
from meetara_build.rounds.inbox import REJECTED, mark, read_inbox


def reject(
    ids: Annotated[
        list[str],
        typer.Argument(help="Ids, or their beginnings.", autocompletion=complete_proposals),
    ],
    reason: Annotated[str, typer.Option(help="Why, for the agents and for people.")] = "",
) -> None:
    """Refuse what was proposed.

    Raises:
        ConfigError: an id is unknown.
    """
    from meetara_build.cli import advice
    from meetara_build.rounds import asking

    graph = project_graph()
    verdicts = [asking.read_verdict(one) for one in read_inbox(graph.root)["verdicts"]]
    chosen = advice.find_proposals(ids, verdicts, {})
    with advice.shared_context(graph) as shared:
        for one in chosen:
            asking.reply(shared, one.id, advice.PERSON, "rejected", reason)
    mark(graph.root, [one.id for one in chosen], REJECTED)
    out.print(
        f"{amount(len(chosen), 'proposal')} refused; `meetara-build propose` leaves them out from "
        "now on"
    )
