"""What agents advise, and what comes of it: for the commands that ask them, and those that
answer."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from meetara_build.cli.output import out
from meetara_build.config.overlay import remove_decisions, write_decisions
from meetara_build.config.resolve import Configuration
from meetara_build.context.delivery import Context as Shared
from meetara_build.context.places import open_context
from meetara_build.engine.profiles import jobs_at_once, profile_hardware, profile_prices
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.outside import show_line, show_short
from meetara_build.rounds import asking
from meetara_build.rounds.asking import Advice
from meetara_build.rounds.gathering import gather
from meetara_build.rounds.inbox import REJECTED, TAKEN, keep, mark
from meetara_build.rounds.policy import ACCEPT, stance
from meetara_build.rounds.ranking import LATER, OUTVOTED, REFUSED, WINS, Verdict
from meetara_build.rounds.track_record import WITHDRAWN

PERSON, POLICY = "person", "policy"
"""Who answers proposals: a person at the command line, or build.yaml's `agents.policy`."""


def advise(graph: Graph, profile: str, domains: Sequence[str] = ()) -> Advice:
    """What the agents advise now; kept for `plan`, and told to the shared context."""
    configuration = Configuration(graph.project, profile_hardware(graph.project, profile))
    prices = profile_prices(graph.project, profile) or {}
    with shared_context(graph) as shared:
        context = gather(
            graph,
            configuration,
            shared,
            jobs_at_once(graph.project, profile),
            prices.get(graph.machines[""], 0.0),
        )
        advice = asking.ask(graph.project, graph.root, configuration, context, domains)
        advice = replace(advice, faults={**advice.faults, **asking.announce(shared, advice)})
    keep(graph.root, asking.content(advice))
    return advice


def take(graph: Graph, verdicts: Sequence[Verdict], by: str) -> list[str]:
    """Write proposals into the overlays, and tell the shared context; the ids of those taken."""
    with shared_context(graph) as shared:
        for one in verdicts:
            write_decisions(graph.project / "conf", one.proposal.domain, [asking.decision(one)])
            asking.reply(shared, one.id, by, "accepted")
    mark(graph.root, [one.id for one in verdicts], TAKEN)
    return [one.id for one in verdicts]


def find_withdrawals(graph: Graph, profile: str) -> list[asking.Withdrawal]:
    """The decisions in force that measured worse than what was before them."""
    configuration = Configuration(graph.project, profile_hardware(graph.project, profile))
    with shared_context(graph) as shared:
        return asking.withdrawn(gather(graph, configuration, shared))


def take_back(
    graph: Graph, withdrawals: Sequence[asking.Withdrawal], policy: Mapping[str, Any]
) -> list[asking.Withdrawal]:
    """Take decisions back where policy accepts their agent's proposals without asking; those that
    were."""
    found = [one for one in withdrawals if stance(policy, one.agent) == ACCEPT]
    with shared_context(graph) as shared:
        for one in found:
            remove_decisions(graph.project / "conf", one.domain, [one.key])
            asking.reply(shared, one.id, WITHDRAWN, one.answer, one.why)
    mark(graph.root, [one.id for one in found], REJECTED)
    return found


@contextlib.contextmanager
def shared_context(graph: Graph) -> Iterator[Any]:
    """The shared context of a project."""
    shared: Shared = open_context(graph.root, graph.context)
    try:
        yield shared
    finally:
        shared.close()


def print_advice(advice: Advice, taken: Sequence[str], undone: Sequence[asking.Withdrawal]) -> None:
    """What agents propose, the winner of each key first, and what else they say."""
    print_verdicts(advice.verdicts, taken)
    for one in advice.withdrawals:
        done = (
            "taken back" if one in undone else f"to be taken back: `meetara-build accept {one.id}`"
        )
        out.print(show_line(f"{one.domain} {one.key} ({one.agent}): {one.why}; {done}"))
    _print_insights(advice.insights, advice.faults)
    counts = {
        status: sum(one.status == status for one in advice.verdicts)
        for status in (WINS, OUTVOTED, LATER, REFUSED)
    }
    shown = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing"
    out.print(f"Proposed: {shown}; {len(taken)} taken by policy.", style="bold")


def _print_insights(insights: Mapping[str, Sequence[str]], faults: Mapping[str, str]) -> None:
    for name, lines in insights.items():
        for line in lines:
            out.print(show_line(f"  {name}: {line}"), style="dim")
    for name, fault in faults.items():
        out.print(f"  {name}: {fault}", style="red")


def print_verdicts(verdicts: Sequence[Verdict], taken: Sequence[str] = ()) -> None:
    """Each key that something is proposed for: the winner and why, then the others."""
    for one in verdicts:
        if one.status == REFUSED:
            continue
        values = f"{show_short(one.now)} → {show_short(one.proposal.value)}"
        change = show_line(f"{one.proposal.domain} {one.proposal.key}: {values}  ({one.agent})")
        mark = "taken" if one.id in taken else one.status
        bold = "bold" if one.status == WINS else "dim"
        out.print(f"{one.id}  {mark:8} {change}", style=bold)
        out.print(f"    {show_line(one.proposal.reason)}")
        if one.proposal.evidence:
            out.print(f"    evidence: {show_line('; '.join(one.proposal.evidence))}", style="dim")
        out.print(f"    {show_line(one.why)}", style="dim")
    for one in verdicts:
        if one.status == REFUSED:
            what = f"{one.proposal.domain} {one.proposal.key}: {show_short(one.proposal.value)}"
            out.print(show_line(f"refused  {what} ({one.agent}): {one.why}"), style="dim")


def find_proposals(ids: Sequence[str], verdicts: Sequence[Verdict], others: Any) -> list[Verdict]:
    """The proposals whose ids begin so; of ``others`` an id may be too.

    Raises:
        ConfigError: no id is given, or one of them is unknown.
    """
    if not ids:
        raise ConfigError(
            "name what you mean by its id, as `meetara-build propose` shows it, or give --all"
        )
    for word in ids:
        if not any(one.id.startswith(word) for one in verdicts) and not any(
            id.startswith(word) for id in others
        ):
            raise ConfigError(
                f"'{word}' is the id of no proposal; `meetara-build propose` lists them"
            )
    return [one for one in verdicts if any(one.id.startswith(word) for word in ids)]
