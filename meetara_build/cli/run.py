"""Build, ask the agents, take what they propose, and again.

Until nothing that policy accepts promises more than it costs.
"""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from meetara_build.cli.build import build_domains
from meetara_build.cli.options import LOCAL, Cores, Domains, Json, Profile
from meetara_build.cli.output import amount, out, print_json
from meetara_build.engine.planning import project_graph, select_domains
from meetara_build.engine.profiles import profile_hardware
from meetara_build.errors import BuildError, ContextError
from meetara_build.graph import Graph
from meetara_build.outside import show_line, show_short

if TYPE_CHECKING:
    from meetara_build.rounds.asking import Advice
    from meetara_build.rounds.ranking import Verdict


class Budget(NamedTuple):
    """What all rounds together may take: minutes, and dollars at the provider's price; None is no
    bound."""

    minutes: float | None
    usd: float | None
    started: float

    def allows(self, seconds: float, usd_per_hour: float) -> bool:
        """Whether there is room for so many seconds more."""
        whole = time.monotonic() - self.started + seconds
        in_time = self.minutes is None or whole <= 60 * self.minutes
        return in_time and (self.usd is None or whole / 3600 * usd_per_hour <= self.usd)


def run(
    domains: Domains = None,
    rounds: Annotated[int, typer.Option(min=1, help="At most so many rounds.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Begin no round after so long.")
    ] = None,
    profile: Profile = LOCAL,
    cores: Cores = None,
    as_json: Json = False,
) -> None:
    """Build, then so many rounds: ask, take, build, and take back what made things worse.

    Raises:
        BuildError: a job failed, or models are held back, and no agent knew what to do.
    """
    from meetara_build.cli import advice as agents
    from meetara_build.config.resolve import Configuration

    graph = project_graph(profile)
    named = select_domains(graph, domains or [])
    policy = Configuration(graph.project).build.agents
    budget = Budget(
        minutes if minutes is not None else policy.minutes, policy.usd, time.monotonic()
    )
    loop = Loop(named, profile, cores, as_json)
    story: list[dict[str, Any]] = []
    fault = loop.build()
    for number in range(1, rounds + 1):
        loop.say(f"Round {number} of {rounds}")
        try:
            advice = agents.advise(project_graph(profile), profile, named)
        except ContextError as away:
            loop.say(f"The agents cannot be asked: {away}")
            break
        chosen = loop.choose(advice)
        if not as_json:
            agents.print_advice(advice, [one.id for one in chosen], [])
        if not chosen:
            loop.say(
                "No proposal promises more than it costs, or may be taken without asking: done."
            )
            break
        if not budget.allows(_seconds(chosen, advice), advice.context.usd_per_hour):
            loop.say("Another round would go beyond the budget: done.")
            break
        taken = agents.take(project_graph(profile), chosen, agents.POLICY)
        fault = loop.build()
        worse = agents.find_withdrawals(project_graph(profile), profile)
        undone = agents.take_back(graph, worse, advice.context.policy)
        for one in undone:
            loop.say(f"{one.domain} {one.key} ({one.agent}) is taken back: {one.why}")
        if undone:
            fault = loop.build()
        found = verify_breakthroughs(project_graph(profile), profile, loop)
        story.append(
            {
                "round": number,
                "taken": taken,
                "withdrawn": [one.id for one in undone],
                "breakthroughs": found,
            }
        )
    if fault is not None:
        raise fault
    if as_json:
        print_json({"rounds": story, "seconds": time.monotonic() - budget.started})


def verify_breakthroughs(graph: Graph, profile: str, loop: "Loop") -> list[str]:
    """Train results far beyond the others' once more with another seed, and tell all agents of
    those that hold; their domains."""
    from meetara_build.cli.advice import shared_context
    from meetara_build.config.resolve import Configuration
    from meetara_build.engine.retrain import repeat_training
    from meetara_build.rounds.breakthroughs import breakthroughs, holds, message
    from meetara_build.rounds.gathering import gather
    from meetara_build.rounds.track_record import outcomes

    held = []
    with shared_context(graph) as shared:
        past = gather(
            graph, Configuration(graph.project, profile_hardware(graph.project, profile)), shared
        )
        told = [
            message["id"]
            for message in past.messages
            if message["about"] in ("breakthrough", "note")
        ]
        runs = {run.id: run for run in past.runs}
        for one in breakthroughs(outcomes(past.messages, past.runs), told):
            before, after = (
                runs[id].metrics["validation_loss_after"] for id in (one.before, one.after)
            )
            if runs[one.after].fingerprint != graph.step("adapter", one.domain).fingerprint:
                continue  # it is no longer what is configured
            again = repeat_training(graph, one.domain, runs[one.after].recipe["seed"] + 1)[
                "validation_loss_after"
            ]
            good = holds(before, after, again)
            body = message(one, {"before": before, "after": after, "repeated": again})
            about = "breakthrough" if good else "note"
            shared.deliver(
                [
                    {
                        "kind": "message",
                        "id": one.id,
                        "time": time.time(),
                        "about": about,
                        "sender": "run",
                        "domain": one.domain,
                        "body": body,
                    }
                ]
            )
            loop.say(
                f"{one.domain}: loss {before:.3f} → {after:.3f}, far beyond {one.others} others "
                f"(modified z-score {one.score:.1f}); with another seed {again:.3f}: "
                f"{'a breakthrough' if good else 'luck'}"
            )
            held += [one.domain] if good else []
    return held


def find_worthwhile(advice: "Advice") -> "list[Verdict]":
    """The winners that promise more than they cost, and what an agent proposes for a domain whose
    last run failed.

    What one agent proposes for a domain is built at one time, so its worth is taken together.
    """
    context, winners = advice.context, advice.winners()
    failed = {run.domain: run.outcome == "failed" for run in context.runs}
    worth: dict[tuple[str, str], float] = {}
    for one in winners:
        worth[one.agent, one.proposal.domain] = (
            worth.get((one.agent, one.proposal.domain), 0.0) + one.worth
        )
    price = context.policy["minutes_a_percent"]
    return [
        one
        for one in winners
        if failed.get(one.proposal.domain)
        or worth[one.agent, one.proposal.domain] * price >= one.minutes
    ]


class Loop:
    """What stays the same from round to round."""

    def __init__(
        self, domains: Sequence[str], profile: str, cores: int | None, quiet: bool
    ) -> None:
        self.domains, self.profile, self.cores, self.quiet = domains, profile, cores, quiet

    def say(self, text: str) -> None:
        """Tell a person."""
        if not self.quiet:
            out.print(text, style="bold")

    def build(self) -> BuildError | None:
        """Build; a failure is what the agents are asked about next."""
        try:
            done = build_domains(self.domains, self.profile, cores=self.cores, quiet=self.quiet)
            runs = amount(len(done.runs), "stage run")
            self.say(
                f"{amount(len(done.domains), 'domain')} up to date: {runs} in {done.seconds:.0f} s"
            )
            done.refuse_held_back()
        except BuildError as fault:
            self.say(f"meetara-build: {fault}")
            return fault
        return None

    def choose(self, advice: "Advice") -> "list[Verdict]":
        """What promises more than it costs, and policy accepts, or a person at the terminal says
        yes to."""
        from meetara_build.rounds.policy import ACCEPT, stance

        found = find_worthwhile(advice)
        asked = [one for one in found if stance(advice.context.policy, one.agent) != ACCEPT]
        yes = (
            bool(asked)
            and not self.quiet
            and sys.stdin.isatty()
            and out.is_terminal
            and _is_agreed(asked)
        )
        return [one for one in found if yes or one not in asked]


def _is_agreed(asked: "Sequence[Verdict]") -> bool:
    for one in asked:
        change = (
            f"{one.proposal.domain} {one.proposal.key}: {show_short(one.now)} → "
            f"{show_short(one.proposal.value)}"
        )
        out.print(show_line(f"{change} ({one.agent}): {one.proposal.reason}"))
    return typer.confirm(f"Take {amount(len(asked), 'proposal')}?", default=False)


def _seconds(chosen: "Sequence[Verdict]", advice: "Advice") -> float:
    """About how long it takes to build again what these reach."""
    minutes: dict[str, float] = {}
    for one in chosen:
        minutes[one.proposal.domain] = max(minutes.get(one.proposal.domain, 0.0), one.minutes)
    return 60 * sum(minutes.values()) / max(advice.context.slots, 1)
