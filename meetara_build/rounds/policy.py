"""What agents may change: which keys, by how much, how often, and what people have refused
already."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Context, Domain
from meetara_build.config.keys import is_within
from meetara_build.errors import ConfigError
from meetara_build.rounds.track_record import find_answer_time

ACCEPT, ASK, NEVER = "accept", "ask", "never"

Try = Callable[[Proposal], None]
"""Raises a ConfigError where the configuration would refuse a proposal."""


def stance(policy: Mapping[str, Any], agent: str) -> str:
    """What becomes of an agent's proposals: accept, ask or never."""
    by_agent = policy["policy"]
    return str(by_agent.get(agent, by_agent.get("default", ASK)))


def refusal(context: Context, agent: str, id: str, proposal: Proposal, attempt: Try) -> str | None:
    """Why a proposal may not be taken; None if it may."""
    policy, domain = context.policy, context.domains.get(proposal.domain)
    if domain is None:
        return f"there is no domain '{proposal.domain}' in this build"
    key = proposal.key
    if stance(policy, agent) == NEVER:
        return f"agents.policy in conf/build.yaml never takes what {agent} proposes"
    if not is_within(key, policy["may_change"]):
        return f"'{key}' is not among agents.may_change in conf/build.yaml"
    if domain.is_locked(key):
        return f"'{key}' is locked"
    if key in domain.config and domain.config[key] == proposal.value:
        return "it is so already"
    if too_far := _too_far(domain.config.get(key), proposal.value, policy["at_most_times"]):
        return too_far
    if unknown := _find_unknown_topic(domain, key, proposal.value):
        return unknown
    if past := _past(context, domain, agent, id, key):
        return past
    try:
        attempt(proposal)
    except ConfigError as fault:
        return str(fault).splitlines()[0]
    return None


def _too_far(now: Any, value: Any, at_most: float) -> str | None:
    numbers = all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in (now, value)
    )
    if not numbers or not now or value * now < 0:
        return None
    times = max(abs(value / now), abs(now / value)) if value else 0.0
    return (
        f"from {now:g} to {value:g} is more than agents.at_most_times ({at_most:g})"
        if times > at_most
        else None
    )


def _find_unknown_topic(domain: Domain, key: str, value: Any) -> str | None:
    """A topic that no record has, where the data set is there to tell: its training would fail."""
    records = (
        domain.read("dataset/train.jsonl")
        if key == "training.topic_weights" and isinstance(value, Mapping)
        else None
    )
    if records is None:
        return None
    topics = {record["topic"] for record in records}
    return next(
        (
            f"no record of {domain.name} has the topic {topic!r}"
            for topic in value
            if topic not in topics
        ),
        None,
    )


def _past(context: Context, domain: Domain, agent: str, id: str, key: str) -> str | None:
    """What has been said of this proposal before, or how lately the agent has changed the key."""
    proposals = [message for message in context.messages if message["about"] == "proposal"]
    own = [message for message in proposals if message["sender"] == agent]
    for message in proposals:
        if (
            message["id"] != id or not message["answers"]
        ):  # whoever announced it: a token does under its own name
            continue
        last = message["answers"][-1]
        if last["answer"] == "rejected":
            return f"it was rejected before{': ' if last['reason'] else ''}{last['reason']}"
        if last["answer"] == "accepted":
            return "it was taken before, and someone has taken it back since"
    accepted = [
        find_answer_time(message, "accepted") or 0.0
        for message in own
        if message["domain"] == domain.name and message["body"]["key"] == key
    ]
    last_time = max(accepted, default=0.0)
    if (
        last_time
        and (passed := _builds_since(context, domain.name, last_time))
        < context.policy["rest_builds"]
    ):
        return (
            f"{agent} changed it {passed} builds ago; agents.rest_builds is "
            f"{context.policy['rest_builds']}"
        )
    return None


def _builds_since(context: Context, domain: str, time: float) -> int:
    runs: Sequence[Any] = context.runs
    return len(
        {
            run.build
            for run in runs
            if run.domain == domain and run.time > time and run.outcome != "restored"
        }
    )
