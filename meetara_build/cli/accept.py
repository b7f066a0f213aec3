"""Take proposals: each becomes an entry in conf/overlay/. Or take builds, which later ones are held
to."""

from collections.abc import Sequence
from typing import Annotated

import typer

from meetara_build.cli.completion import complete_proposals
from meetara_build.cli.output import amount, out
from meetara_build.engine.planning import look, project_graph
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.rounds.inbox import REJECTED, mark, read_inbox


def accept(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids, or their beginnings, as `propose` and `plan` show them; or domains.",
            autocompletion=complete_proposals,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that won.")] = False,
) -> None:
    """Take what was proposed last, by id or all of it; take back what is advised to be.

    A domain's name takes its present build: later ones are held back where they are surely worse.

    Raises:
        ConfigError: an id is unknown, its proposal was refused, or a domain's build cannot be taken.
    """
    from meetara_build.cli import advice
    from meetara_build.config.overlay import remove_decisions
    from meetara_build.config.resolve import Configuration
    from meetara_build.rounds import asking
    from meetara_build.rounds.ranking import REFUSED, WINS
    from meetara_build.rounds.track_record import WITHDRAWN

    graph = project_graph()
    named = _accept_builds(graph, ids or [])
    if ids and not named:
        return
    content = read_inbox(graph.root)
    verdicts = [asking.read_verdict(one) for one in content["verdicts"]]
    back = {one["id"]: asking.Withdrawal(**one) for one in content["withdrawals"]}
    chosen = (
        [one for one in verdicts if one.status == WINS]
        if everything
        else advice.find_proposals(named, verdicts, back)
    )
    if refused := [one for one in chosen if one.status == REFUSED]:
        raise ConfigError(
            f"{refused[0].id}: cannot be taken: {refused[0].why}; `meetara-build propose` asks "
            "again"
        )
    undone = [
        one for id, one in back.items() if everything or any(id.startswith(word) for word in named)
    ]
    trial = asking.Trial(Configuration(graph.project))
    for verdict in chosen:
        trial.take(
            verdict.proposal
        )  # what does not go together is refused before anything is written
    taken = advice.take(graph, chosen, advice.PERSON)
    with advice.shared_context(graph) as shared:
        for one in undone:
            remove_decisions(graph.project / "conf", one.domain, [one.key])
            asking.reply(shared, one.id, WITHDRAWN, one.answer, one.why)
    mark(graph.root, [one.id for one in undone], REJECTED)
    counts = f"{amount(len(taken), 'proposal')} taken, {amount(len(undone), 'decision')} taken back"
    out.print(f"{counts}: see conf/overlay/ and `meetara-build plan`")


def _accept_builds(graph: Graph, words: Sequence[str]) -> list[str]:
    """Take the builds of the domains among some words; the other words."""
    from meetara_build.engine.acceptance import accept_build

    domains = [word for word in words if word in graph.domains]
    made = look(graph, domains) if domains else None
    for domain in domains:
        assert made is not None
        path = accept_build(graph, made, domain)
        out.print(f"{domain}: later builds are held to this one: {path.relative_to(graph.project)}")
    return [word for word in words if word not in domains]
