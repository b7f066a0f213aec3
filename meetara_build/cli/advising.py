"""agents, propose, accept and reject: what agents advise, and what people make of it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from meetara_build.agents.snapshot import Context
from meetara_build.cli.output import amount, out, print_json, progress, table
from meetara_build.config.overlay import remove_decisions, write_decisions
from meetara_build.config.plugins import misnamed_plugins
from meetara_build.config.resolve import Configuration
from meetara_build.context.delivery import Context as Shared
from meetara_build.context.delivery import Delivery
from meetara_build.context.places import open_context
from meetara_build.engine.planning import project_graph, wanted
from meetara_build.engine.snakemake import jobs_at_once, profile_hardware, profile_prices
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.hosting.host import ask_all
from meetara_build.outside import show_line, show_short
from meetara_build.rounds import asking
from meetara_build.rounds.asking import Advice
from meetara_build.rounds.gathering import gather, look_back
from meetara_build.rounds.inbox import REJECTED, TAKEN, keep, kept, mark
from meetara_build.rounds.policy import ACCEPT, stance
from meetara_build.rounds.ranking import LATER, OUTVOTED, REFUSED, WINS, Verdict
from meetara_build.rounds.track_record import WITHDRAWN, Record, outcomes, records

PERSON, POLICY = "person", "policy"
"""Who answers proposals: a person at the command line, or build.yaml's `agents.policy`."""


def show_agents(*, as_json: bool) -> None:
    """Every agent: what it can do, what policy says of it, how its proposals fared, and what is wrong with it."""
    graph = project_graph()
    configuration = Configuration(graph.project)
    policy = configuration.build.agents.model_dump()
    with shared_context(graph) as shared:
        Delivery(graph.root, shared).once()
        past = look_back(shared)
    known = records(past.messages, outcomes(past.messages, past.runs))
    made = {name: make(Context({})) for name, make in asking.agents(graph.project, policy).items()}
    answers = ask_all(made, {"hook": "verify"}, policy["seconds"], graph.root / "logs" / "agents")
    found = {}
    misnamed = misnamed_plugins(graph.project)
    for name in [*answers, *misnamed, *(name for name in known if name not in answers)]:
        answer, record = answers.get(name), known.get(name, Record())
        found[name] = {
            "hooks": (answer.value or [])
            if answer
            else []
            if name in misnamed
            else ["message"],  # others speak over MCP
            "fault": answer.fault if answer else misnamed.get(name),
            "policy": stance(policy, name),
            "reliability": record.reliability,
            **asdict(record),
        }
    if as_json:
        print_json({"agents": found})
        return
    shown = table(
        "agent", "does", "policy", ">proposed", ">accepted", ">helped", ">promised", ">measured"
    )
    shown.columns[0].no_wrap = True
    for name, one in found.items():
        gains = [
            f"{one[key]:.1%}" if one["measured"] else "" for key in ("expected_gain", "actual_gain")
        ]
        helped = f"{one['helped']} of {one['measured']}" if one["measured"] else ""
        counts = [str(one[key] or "") for key in ("proposed", "accepted")]
        shown.add_row(
            show_line(name),
            ", ".join(one["hooks"]) or "nothing",
            one["policy"],
            *counts,
            helped,
            *gains,
        )
    out.print(shown)
    for name, one in found.items():
        if one["fault"]:
            out.print(f"  {name}: {one['fault']}", style="red")


def propose(words: Sequence[str], profile: str, *, as_json: bool) -> None:
    """Ask the agents, show what they propose, and take what policy accepts."""
    graph = project_graph(profile)
    domains = wanted(graph, words)
    with progress() as bar:
        bar.add_task("asking the agents", total=None)
        advice = advised(graph, profile, domains)
    taken = take(graph, [one for one in advice.winners() if _policy(advice, one) == ACCEPT], POLICY)
    undone = take_back(graph, advice.withdrawals, advice.context.policy)
    if as_json:
        print_json(
            {
                "proposals": [{**asdict(one), "taken": one.id in taken} for one in advice.verdicts],
                "withdrawn": [asdict(one) for one in undone],
                "insights": advice.insights,
                "faults": advice.faults,
            }
        )
        return
    print_advice(advice, taken, undone)


def advised(graph: Graph, profile: str, domains: Sequence[str] = ()) -> Advice:
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


def measured(graph: Graph, profile: str) -> list[asking.Withdrawal]:
    """The decisions in force that measured worse than what was before them."""
    configuration = Configuration(graph.project, profile_hardware(graph.project, profile))
    with shared_context(graph) as shared:
        return asking.withdrawn(gather(graph, configuration, shared))


def take_back(
    graph: Graph, withdrawals: Sequence[asking.Withdrawal], policy: Mapping[str, Any]
) -> list[asking.Withdrawal]:
    """Take decisions back where policy accepts their agent's proposals without asking; those that were."""
    found = [one for one in withdrawals if stance(policy, one.agent) == ACCEPT]
    with shared_context(graph) as shared:
        for one in found:
            remove_decisions(graph.project / "conf", one.domain, [one.key])
            asking.reply(shared, one.id, WITHDRAWN, one.answer, one.why)
    mark(graph.root, [one.id for one in found], REJECTED)
    return found


def accept(ids: Sequence[str], *, everything: bool) -> None:
    """Take what was proposed last, by id or all of it; take back what is advised to be.

    Raises:
        ConfigError: an id is unknown, or its proposal was refused.
    """
    graph = project_graph()
    content = kept(graph.root)
    verdicts = [asking.read_verdict(one) for one in content["verdicts"]]
    back = {one["id"]: asking.Withdrawal(**one) for one in content["withdrawals"]}
    chosen = (
        [one for one in verdicts if one.status == WINS]
        if everything
        else _named(ids, verdicts, back)
    )
    if refused := [one for one in chosen if one.status == REFUSED]:
        raise ConfigError(
            f"{refused[0].id}: cannot be taken: {refused[0].why}; `meetara-build propose` asks again"
        )
    undone = [
        one for id, one in back.items() if everything or any(id.startswith(word) for word in ids)
    ]
    trial = asking.Trial(Configuration(graph.project))
    for verdict in chosen:
        trial.take(
            verdict.proposal
        )  # what does not go together is refused before anything is written
    taken = take(graph, chosen, PERSON)
    with shared_context(graph) as shared:
        for one in undone:
            remove_decisions(graph.project / "conf", one.domain, [one.key])
            asking.reply(shared, one.id, WITHDRAWN, one.answer, one.why)
    mark(graph.root, [one.id for one in undone], REJECTED)
    counts = f"{amount(len(taken), 'proposal')} taken, {amount(len(undone), 'decision')} taken back"
    out.print(f"{counts}: see conf/overlay/ and `meetara-build plan`")


def reject(ids: Sequence[str], reason: str) -> None:
    """Refuse what was proposed.

    Raises:
        ConfigError: an id is unknown.
    """
    graph = project_graph()
    verdicts = [asking.read_verdict(one) for one in kept(graph.root)["verdicts"]]
    chosen = _named(ids, verdicts, {})
    with shared_context(graph) as shared:
        for one in chosen:
            asking.reply(shared, one.id, PERSON, "rejected", reason)
    mark(graph.root, [one.id for one in chosen], REJECTED)
    out.print(
        f"{amount(len(chosen), 'proposal')} refused; `meetara-build propose` leaves them out from now on"
    )


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


def _policy(advice: Advice, verdict: Verdict) -> str:
    return stance(advice.context.policy, verdict.agent)


def _named(ids: Sequence[str], verdicts: Sequence[Verdict], others: Any) -> list[Verdict]:
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
