"""Which of several proposals for the same key is taken: the one that is worth most, by what its
agent's past ones were worth.

Worth is in percent of loss: stated gain × confidence × the agent's reliability × its calibration
(``record.Record``). Other figures are turned into it: time by what a percent may cost
(``agents.minutes_a_percent``), bytes and memory by a tenth.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from meetara_build.agents.proposal import Proposal
from meetara_build.rounds.track_record import Record

WINS, OUTVOTED, REFUSED, LATER = "wins", "outvoted", "refused", "later"
BYTES_FOR_LOSS = 0.1
"""A tenth of a file's size is worth a hundredth of loss: quantized types trade about so much."""
LARGEST_GAIN = 0.5
"""No single key halves a loss: a larger promise counts as this one."""


@dataclass(frozen=True)
class Verdict:
    """A proposal, and what became of it.

    Attributes:
        status: wins, outvoted (another for the same key is worth more), refused (by policy or
            schema), later (enough for one round).
        why: in a sentence.
        now: the key's present value.
        worth: in percent of loss.
        minutes: what it costs to build the domain again.
    """

    id: str
    agent: str
    proposal: Proposal
    status: str
    why: str
    now: object = None
    worth: float = 0.0
    minutes: float = 0.0


def worth(proposal: Proposal, record: Record, minutes: float, minutes_a_percent: float) -> float:
    """What a proposal may be expected to be worth, in percent of loss. ``minutes`` is how long the
    domain's training takes."""
    gain = min(max(proposal.expected_gain, 0.0), LARGEST_GAIN)
    percent = 100 * gain
    if proposal.figure == "seconds":
        percent = gain * minutes / minutes_a_percent if minutes_a_percent else 0.0
    elif proposal.figure in ("size", "memory"):
        percent = 100 * gain * BYTES_FOR_LOSS
    return (
        percent * min(max(proposal.confidence, 0.0), 1.0) * record.reliability * record.calibration
    )


def settle(
    verdicts: Sequence[Verdict],
    records: Mapping[str, Record],
    most: int,
    careful: Collection[str] = (),
) -> list[Verdict]:
    """Of those that are not refused, for each domain and key the one that is worth most wins; of a
    domain at most so many.

    ``careful`` are the domains where several together made things worse: there it is one at a time.

    The order in which agents were asked does not matter.
    """
    allowed = [verdict for verdict in verdicts if verdict.status != REFUSED]
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in allowed:
        groups.setdefault((verdict.proposal.domain, verdict.proposal.key), []).append(verdict)
    settled = [one for group in groups.values() for one in _contest(group, records)]
    settled += [verdict for verdict in verdicts if verdict.status == REFUSED]
    return sort_for_people(_limit(settled, most, careful))


def sort_for_people(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """In the order in which people read them: by domain and key, what is worth most first."""
    return sorted(verdicts, key=lambda one: (one.proposal.domain, one.proposal.key, _rank(one)))


def _rank(verdict: Verdict) -> tuple[float, str, str]:
    return (-verdict.worth, verdict.agent, verdict.id)


def _contest(group: Sequence[Verdict], records: Mapping[str, Record]) -> Iterable[Verdict]:
    first, *others = sorted(group, key=_rank)
    record = records.get(first.agent, Record())
    basis = (
        f"{first.proposal.expected_gain:.1%} less {first.proposal.figure}, confidence "
        f"{first.proposal.confidence:.0%}"
    )
    past = (
        f"{record.helped} of {record.measured} of its decisions helped"
        if record.measured
        else "nothing of it is measured yet"
    )
    rivals = f", against {', '.join(sorted({one.agent for one in others}))}" if others else ""
    yield replace(first, status=WINS, why=f"{basis}; {past}{rivals}")
    for other in others:
        same = other.proposal.value == first.proposal.value
        why = (
            f"{first.agent} proposes the same"
            if same
            else f"{first.agent}'s is worth {first.worth:.2f}, this {other.worth:.2f}"
        )
        yield replace(other, status=OUTVOTED, why=why)


def _limit(verdicts: Sequence[Verdict], most: int, careful: Collection[str]) -> list[Verdict]:
    """The best so many winners of each domain; the rest wait, so that what is measured can be told
    apart."""
    taken: dict[str, int] = {}
    limited = []
    for verdict in sorted(verdicts, key=_rank):
        if verdict.status == WINS:
            name = verdict.proposal.domain
            number = taken[name] = taken.get(name, 0) + 1
            if name in careful and number > 1:
                verdict = replace(
                    verdict, status=LATER, why="several together made it worse: now one at a time"
                )
            elif number > most:
                verdict = replace(
                    verdict,
                    status=LATER,
                    why=f"{most} others are worth more; agents.decisions_a_round is {most}",
                )
        limited.append(verdict)
    return limited
