"""One round of advice: every agent is asked, what it proposes is checked, weighed and kept for
`plan` to show."""

import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Context, with_settings
from meetara_build.config.plugins import find_misnamed_plugins, plugin_files
from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.config.schema import Decision
from meetara_build.context import reports
from meetara_build.context.delivery import Context as Shared
from meetara_build.errors import ConfigError, ReportError
from meetara_build.graph.compose import check_resolved
from meetara_build.graph.stages import CHAIN, Stage, list_reached
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import Answer, ask_in_turn
from meetara_build.hosting.mcp_agent import prepare_external
from meetara_build.hosting.supervisor import Prepare
from meetara_build.rounds.policy import NEVER, refusal, stance
from meetara_build.rounds.ranking import (
    LATER,
    REFUSED,
    WINS,
    Verdict,
    settle,
    sort_for_people,
    worth,
)
from meetara_build.rounds.track_record import WITHDRAWN, Outcome, Record, outcomes
from meetara_build.store.manifest import digest_json

LOGS = Path("logs") / "agents"
"""Where what agents print is kept, below the root."""
WORSE = 0.0
"""A loss that rises by more than this share is worse: the same recipe gives the same loss, so there
is no noise to allow for."""
LOSS_FOR_OTHERS = 0.01
"""How much loss, as a share, a decision may cost that promised less time, size or memory."""


@dataclass(frozen=True)
class Withdrawal:
    """A decision that made things worse than they were; ``others`` were taken back with it, and one
    of them may be to blame."""

    id: str
    agent: str
    domain: str
    key: str
    why: str
    others: int = 0

    @property
    def answer(self) -> str:
        """What its proposal is told: it is not made again if it was alone."""
        return "noted" if self.others else "rejected"


@dataclass(frozen=True)
class Advice:
    """What a round of asking gave; ``faults`` and ``insights`` by agent."""

    verdicts: list[Verdict]
    withdrawals: list[Withdrawal]
    insights: dict[str, list[str]]
    faults: dict[str, str]
    seconds: dict[str, float]
    context: Context

    def winners(self) -> list[Verdict]:
        """What is to be taken."""
        return [verdict for verdict in self.verdicts if verdict.status == WINS]


def agents(project: Path, policy: Mapping[str, Any]) -> dict[str, Callable[[Context], Prepare]]:
    """By name, what prepares each agent's process for a context: plugins, and the external ones of
    build.yaml.

    Raises:
        ConfigError: two have the same name.
    """
    found: dict[str, Callable[[Context], Prepare]] = {}
    for name, file in plugin_files(project).items():
        found[name] = partial(_plugin, name, file, policy)
    for name, spec in policy["external"].items():
        if name in found:
            raise ConfigError(
                f"conf/build.yaml: agents.external: '{name}' is the name of a plugin too; rename it"
            )
        found[name] = partial(_external, name, spec)
    return dict(sorted(found.items()))


def ask(
    project: Path,
    root: Path,
    configuration: Configuration,
    context: Context,
    domains: Sequence[str] = (),
) -> Advice:
    """Ask every agent that policy does not shut out; of the answers, those for ``domains``, or all.

    Raises:
        ConfigError: two agents have the same name.
    """
    policy = context.policy
    prepared = _prepare(project, context)
    both = ask_in_turn(
        prepared, [{"hook": "propose"}, {"hook": "insights"}], policy["seconds"], root / LOGS
    )
    answers = {name: said[0] for name, said in both.items()}
    proposed, faults = _understood(answers)
    faults |= {**context.passed_over, **find_misnamed_plugins(project)}
    proposed += _from_messages(context, prepared, {id for _, id, _ in proposed})
    told, silent = _insights({name: said[1] for name, said in both.items() if len(said) > 1})
    faults |= silent
    trial = Trial(configuration)
    verdicts = [
        _verdict(context, agent, id, proposal, trial)
        for agent, id, proposal in proposed
        if not domains or proposal.domain in domains
    ]
    withdrawals = [one for one in withdrawn(context) if not domains or one.domain in domains]
    seconds = {name: answer.seconds for name, answer in answers.items()}
    careful = {
        message["domain"]
        for message in context.messages
        for said in message["answers"]
        if (said["sender"], said["answer"]) == (WITHDRAWN, "noted")
    }
    settled = settle(verdicts, context.records, policy["decisions_a_round"], careful)
    return Advice(
        sort_for_people(_together(settled, trial)), withdrawals, told, faults, seconds, context
    )


def withdrawn(context: Context) -> list[Withdrawal]:
    """The decisions still in force that measured worse than what was before them."""
    found = []
    measured = outcomes(context.messages, context.runs)
    pairs = Counter((outcome.domain, outcome.before, outcome.after) for outcome in measured)
    for outcome in measured:
        still = (
            any(
                (one["key"], one["agent"]) == (outcome.key, outcome.agent)
                and one["value"] == outcome.value
                for one in context.domains[outcome.domain].decisions
            )
            if outcome.domain in context.domains
            else False
        )
        if still and (why := _worse(outcome)):
            others = pairs[outcome.domain, outcome.before, outcome.after] - 1
            found.append(
                Withdrawal(outcome.id, outcome.agent, outcome.domain, outcome.key, why, others)
            )
    return found


def proposal_id(agent: str, proposal: Proposal) -> str:
    """A name for a proposal that is the same whenever the same is proposed again."""
    return digest_json([agent, proposal.domain, proposal.key, proposal.value])[:12]


def announce(shared: Shared, advice: Advice) -> dict[str, str]:
    """Tell the shared context what is proposed, of each agent alone; by agent, why it does not take
    what that one says."""
    by_agent: dict[str, list[dict[str, object]]] = {}
    for one in advice.verdicts:
        if one.status != REFUSED:
            by_agent.setdefault(one.agent, []).append(_message(one.agent, one.id, one.proposal))
    faults = {}
    for agent, said in by_agent.items():
        try:
            shared.deliver(said)
        except ReportError as refusal:
            faults[agent] = f"what it proposes is not taken: {refusal}"
    return faults


def reply(shared: Shared, id: str, sender: str, answer: str, reason: str = "") -> None:
    """Tell the shared context how a proposal was answered, and by whom."""
    shared.deliver(
        [
            {
                "kind": "reply",
                "id": os.urandom(16).hex(),
                "time": time.time(),
                "message": id,
                "sender": sender,
                "answer": answer,
                "reason": reason,
            }
        ]
    )


def decision(verdict: Verdict) -> Decision:
    """A proposal as an entry of an overlay."""
    one = verdict.proposal
    return Decision(
        key=one.key,
        value=one.value,
        agent=verdict.agent,
        reason=one.reason,
        evidence=[*one.evidence],
        expected_gain=one.expected_gain,
        confidence=one.confidence,
        figure=one.figure,
    )


def content(advice: Advice) -> dict[str, object]:
    """Advice as JSON values."""
    return {
        "verdicts": [asdict(verdict) for verdict in advice.verdicts],
        "withdrawals": [asdict(one) for one in advice.withdrawals],
        "insights": advice.insights,
        "faults": advice.faults,
    }


def read_verdict(content: Mapping[str, Any]) -> Verdict:
    """A verdict from JSON values."""
    return Verdict(**{**content, "proposal": Proposal(**content["proposal"])})


def _prepare(project: Path, context: Context) -> dict[str, Prepare]:
    """Every agent that policy does not shut out, ready to be asked."""
    known = agents(project, context.policy)
    return {
        name: make(context) for name, make in known.items() if stance(context.policy, name) != NEVER
    }


def _insights(answers: Mapping[str, Answer]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What was said, and the faults, by agent."""
    told = {name: [*map(str, answer.value)] for name, answer in answers.items() if answer.value}
    return told, {name: answer.fault for name, answer in answers.items() if answer.fault}


def _plugin(name: str, file: Path, policy: Mapping[str, Any], context: Context) -> Prepare:
    own = with_settings(context, policy["settings"].get(name, {}))
    return partial(prepare_plugin, name, file, {"context": own})


def _external(name: str, spec: Mapping[str, object], context: Context) -> Prepare:
    return partial(prepare_external, name, spec, context)


Proposed = list[tuple[str, str, Proposal]]
"""Agent, id, proposal."""


def _understood(answers: Mapping[str, Answer]) -> tuple[Proposed, dict[str, str]]:
    """The proposals that have the shape of one; the faults of agents that gave others, or none."""
    found: Proposed = []
    faults: dict[str, str] = {}
    for name, answer in answers.items():
        if answer.fault is not None:
            faults[name] = answer.fault
            continue
        seen: set[str] = set()
        for one in answer.value or ():
            try:
                proposal = _read_proposal(one)
                id = proposal_id(name, proposal)
                reports.check_reports([_message(name, id, proposal)])
            except (ValueError, ReportError) as fault:
                faults[name] = (
                    "proposes something that is none: "
                    f"{str(fault).removeprefix('report 1 (message): ')}"
                )
                continue
            if id not in seen:
                found.append((name, id, proposal))
            seen.add(id)
    return found, faults


def _read_proposal(content: Mapping[str, object]) -> Proposal:
    """A proposal, its fields of the types and sizes that the shared context takes.

    Raises:
        ValueError: saying which is not.
    """
    fields = dict(content)
    domain = fields.pop("domain", None)
    if not isinstance(domain, str):
        raise ValueError("it names no domain")
    try:
        checked = reports.Proposal.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{reports.describe_faults(error)}; mend the agent") from None
    return Proposal(
        domain,
        checked.key,
        checked.value,
        checked.reason,
        tuple(checked.evidence),
        checked.expected_gain or 0.0,
        0.5 if checked.confidence is None else checked.confidence,
        checked.figure,
    )


def _from_messages(context: Context, asked: Container[str], known: Container[str]) -> Proposed:
    """What others proposed through the shared context, and no one has answered yet.

    An agent that was asked once and is no more has left proposals too: their ids say so
    (``proposal_id``), and they count no more.
    """
    found: Proposed = []
    for message in context.messages:
        sender, id = message["sender"], message["id"]
        if message["about"] != "proposal" or message["answers"] or sender in asked or id in known:
            continue
        proposal = _read_proposal({**message["body"], "domain": message["domain"]})
        if id != proposal_id(sender, proposal):
            found.append((sender, id, proposal))
    return found


class Trial:
    """The configuration, to try proposals on: alone, or on top of those that were taken on trial
    before."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.resolved = {name: configuration.resolve(name) for name in configuration.domains}
        self.taken: dict[str, list[Decision]] = {}

    def check(self, one: Proposal) -> None:
        """Try it alone.

        Raises:
            ConfigError: the configuration refuses it.
        """
        self._try_out(one)

    def take(self, one: Proposal) -> None:
        """Try it, and keep it for those that follow.

        Raises:
            ConfigError: the configuration refuses it.
        """
        decisions, tried = self._try_out(one)
        self.taken[one.domain], self.resolved[one.domain] = decisions, tried

    def _try_out(self, one: Proposal) -> tuple[list[Decision], Resolved]:
        try:
            proposed = Decision(key=one.key, value=one.value, agent="an agent", reason=one.reason)
        except ValidationError as error:
            raise ConfigError(reports.describe_faults(error)) from None
        decisions = [*self.taken.get(one.domain, ()), proposed]
        tried = self.configuration.resolve(one.domain, decisions)
        check_resolved(self.configuration, {**self.resolved, one.domain: tried}, one.domain)
        return decisions, tried


def _together(verdicts: Sequence[Verdict], trial: Trial) -> list[Verdict]:
    """The verdicts, of whose winners those wait that cannot be had together with one that is worth
    more."""
    settled = []
    for verdict in sorted(verdicts, key=lambda one: -one.worth):
        if verdict.status == WINS:
            try:
                trial.take(verdict.proposal)
            except ConfigError as fault:
                why = (
                    f"it does not go with another that is worth more: {str(fault).splitlines()[0]}"
                )
                verdict = replace(verdict, status=LATER, why=why)
        settled.append(verdict)
    return settled


def _verdict(context: Context, agent: str, id: str, proposal: Proposal, trial: Trial) -> Verdict:
    domain = context.domains.get(proposal.domain)
    now = domain.config.get(proposal.key) if domain else None
    if why := refusal(context, agent, id, proposal, trial.check):
        return Verdict(id, agent, proposal, REFUSED, why, now)
    minutes = _minutes(context, proposal.domain, CHAIN)
    of_key = list_reached(proposal.key)
    record = context.records.get(agent, Record())
    value = worth(proposal, record, minutes, context.policy["minutes_a_percent"])
    return Verdict(
        id, agent, proposal, WINS, "", now, value, _minutes(context, proposal.domain, of_key)
    )


def _minutes(context: Context, domain: str, stages: Iterable[Stage]) -> float:
    """What these stages of a domain took the last time each was worked out."""
    newest = [runs[-1].seconds for row in stages if (runs := context.runs_of(domain, row.name))]
    return sum(newest) / 60


def _worse(outcome: Outcome) -> str | None:
    if outcome.failed:
        return f"the next run failed (run {outcome.after})"
    if outcome.solved:
        return None  # whatever its loss: there was no model to compare with
    if outcome.loss is not None and outcome.loss < (
        -WORSE if outcome.figure == "loss" else -LOSS_FOR_OTHERS
    ):
        return f"the loss rose by {-outcome.loss:.2%} (runs {outcome.before} and {outcome.after})"
    if (
        outcome.figure != "loss"
        and outcome.actual is not None
        and outcome.actual <= 0
        and outcome.expected > 0
    ):
        return (
            f"{outcome.figure} did not fall ({-outcome.actual:+.1%}; runs {outcome.before} and "
            f"{outcome.after})"
        )
    return None


def _message(agent: str, id: str, proposal: Proposal) -> dict[str, object]:
    """A proposal as a report to the shared context."""
    body = {**asdict(proposal), "evidence": [*proposal.evidence]}
    domain = body.pop("domain")
    return {
        "kind": "message",
        "id": id,
        "time": time.time(),
        "about": "proposal",
        "sender": agent,
        "domain": domain,
        "body": body,
    }
