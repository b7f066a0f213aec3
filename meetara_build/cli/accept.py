"""Take proposals: each becomes an entry in conf/overlay/."""

from typing import Annotated

import typer

from meetara_build.cli.completion import complete_proposals
from meetara_build.cli.output import amount, out
from meetara_build.engine.planning import project_graph
from meetara_build.errors import ConfigError
from meetara_build.rounds.inbox import REJECTED, mark, read_inbox


def accept(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids, or their beginnings, as `propose` and `plan` show them.",
            autocompletion=complete_proposals,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that won.")] = False,
) -> None:
    """Take what was proposed last, by id or all of it; take back what is advised to be.

    Raises:
        ConfigError: an id is unknown, or its proposal was refused.
    """
    from meetara_build.cli import advice
    from meetara_build.config.overlay import remove_decisions
    from meetara_build.config.resolve import Configuration
    from meetara_build.rounds import asking
    from meetara_build.rounds.ranking import REFUSED, WINS
    from meetara_build.rounds.track_record import WITHDRAWN

    named = ids or []
    graph = project_graph()
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
