"""How each agent's proposals fared: accepted or not, and what they promised against what was
measured.

A decision is measured by the last result before it was accepted and the first other one after it.
Decisions of one domain that are measured by the same pair of runs share the gain as they promised
it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from meetara_build.agents.snapshot import Run
from meetara_build.graph.stages import CHAIN
from meetara_build.toolbox.paired_runs import loss

MEASURED_BY = {figure: row.name for row in CHAIN for figure in row.figures}
"""By figure, the stage whose runs show it."""
UNMEASURED = ("priority", "base")
"""The one changes when a domain is built, not what its own runs show; losses a token on two bases
cannot be compared."""
WITHDRAWN = "measured"
"""Who rejects a decision that made things worse; of several that did so together, who notes that
they did."""


@dataclass(frozen=True)
class Outcome:
    """What became of an accepted proposal. ``actual`` is the share by which its figure fell; None
    where only one side is known.

    ``loss`` is by how much the loss fell, whatever the figure; ``solved`` says that a step failed
    before and not after, ``failed`` the opposite. ``part`` is its share in what was measured
    together with others.
    """

    id: str
    agent: str
    domain: str
    key: str
    value: object
    figure: str
    accepted: float
    expected: float
    actual: float | None
    loss: float | None
    solved: bool
    failed: bool
    before: str | None
    after: str
    part: float = 1.0

    @property
    def helped(self) -> bool:
        """Whether it did what it promised, be it less."""
        return self.solved or (self.actual is not None and self.actual > 0)


@dataclass(frozen=True)
class Record:
    """An agent's: counts of its proposals, and of those that were accepted and measured.

    ``reliability`` is the chance that its next one helps: the mean of a Beta(1, 1) prior after what
    was measured, where of several decisions that were measured together each counts for its part:
    ``parts``, and ``helped_parts`` of those that helped. ``calibration`` is the median of actual
    over expected gain, between 0 and 2, drawn to 1 while little is measured.
    """

    proposed: int = 0
    accepted: int = 0
    rejected: int = 0
    withdrawn: int = 0
    measured: int = 0
    helped: int = 0
    parts: float = 0.0
    helped_parts: float = 0.0
    expected_gain: float = 0.0
    actual_gain: float = 0.0
    calibration: float = 1.0

    @property
    def reliability(self) -> float:
        """From 0 to 1."""
        return (self.helped_parts + 1) / (self.parts + 2)


def outcomes(messages: Iterable[Mapping[str, object]], runs: Sequence[Run]) -> list[Outcome]:
    """What was measured of the proposals that were accepted."""
    by_step: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_step.setdefault((run.domain, run.stage), []).append(run)
    found = [
        _outcome(message, by_step) for message in messages if find_answer_time(message, "accepted")
    ]
    return _share_out([outcome for outcome in found if outcome is not None])


def find_answer_time(message: Mapping[str, Any], answer: str) -> float | None:
    """When a proposal was last given this answer; None if it was not."""
    if message["about"] != "proposal":
        return None
    return next(
        (float(said["time"]) for said in reversed(message["answers"]) if said["answer"] == answer),
        None,
    )


def records(
    messages: Sequence[Mapping[str, Any]], measured: Iterable[Outcome]
) -> dict[str, Record]:
    """Each agent's record."""
    of: dict[str, list[Outcome]] = {}
    for outcome in measured:
        of.setdefault(outcome.agent, []).append(outcome)
    found = {}
    proposals = [message for message in messages if message["about"] == "proposal"]
    for agent in sorted({message["sender"] for message in proposals}):
        own, known = (
            [message for message in proposals if message["sender"] == agent],
            of.get(agent, []),
        )
        last = [message["answers"][-1] for message in own if message["answers"]]
        gains = [
            (outcome.expected, outcome.actual) for outcome in known if outcome.actual is not None
        ]
        found[agent] = Record(
            proposed=len(own),
            accepted=sum(find_answer_time(message, "accepted") is not None for message in own),
            rejected=sum(
                said["answer"] == "rejected" and said["sender"] != WITHDRAWN for said in last
            ),
            withdrawn=sum(said["sender"] == WITHDRAWN for said in last),
            measured=len(known),
            helped=sum(outcome.helped for outcome in known),
            parts=sum(outcome.part for outcome in known),
            helped_parts=sum(outcome.part for outcome in known if outcome.helped),
            expected_gain=sum(expected for expected, _ in gains) / len(gains) if gains else 0.0,
            actual_gain=sum(actual for _, actual in gains) / len(gains) if gains else 0.0,
            calibration=_calibration(gains),
        )
    return found


def _outcome(
    message: Mapping[str, Any], by_step: Mapping[tuple[str, str], Sequence[Run]]
) -> Outcome | None:
    accepted, body = find_answer_time(message, "accepted"), message["body"]
    assert accepted is not None
    figure = body.get("figure", "loss")
    if body["key"] in UNMEASURED:
        return None
    steps = by_step.get((message["domain"], MEASURED_BY[figure]), ())
    before = next((run for run in reversed(steps) if run.time < accepted), None)
    after = next(
        (
            run
            for run in steps
            if run.time >= accepted and (before is None or run.key != before.key)
        ),
        None,
    )
    if after is None:
        return None
    if not _measure(figure, after) and after.outcome != "failed":
        return None  # restored: its time says nothing
    failed_before = before is not None and before.outcome == "failed"
    if before is None or failed_before:
        before = next(
            (run for run in reversed(steps) if run.time < accepted and run.outcome != "failed"),
            None,
        )
    return Outcome(
        message["id"],
        message["sender"],
        message["domain"],
        body["key"],
        body["value"],
        figure,
        accepted,
        float(body.get("expected_gain") or 0.0),
        None if before is None else _fall(_measure(figure, before), _measure(figure, after)),
        None if before is None else _fall(loss(before), loss(after)),
        _is_solved(by_step, message["domain"], accepted),
        after.outcome == "failed" and not failed_before,
        None if before is None else before.id,
        after.id,
    )


def _is_solved(
    by_step: Mapping[tuple[str, str], Sequence[Run]], domain: str, accepted: float
) -> bool:
    """Whether the first step of a domain that failed before a decision went through after it."""
    for row in CHAIN:
        runs = by_step.get((domain, row.name), ())
        before = [run for run in runs if run.time < accepted]
        if before and before[-1].outcome == "failed":
            return next((run.outcome != "failed" for run in runs if run.time >= accepted), False)
    return False


def _share_out(found: Sequence[Outcome]) -> list[Outcome]:
    """Each outcome with its part of a gain that several have in common."""
    together: dict[tuple[object, ...], list[Outcome]] = {}
    for outcome in found:
        together.setdefault(
            (outcome.domain, outcome.figure, outcome.before, outcome.after), []
        ).append(outcome)
    shared = []
    for group in together.values():
        whole = sum(max(outcome.expected, 0.0) for outcome in group)
        for outcome in group:
            part = max(outcome.expected, 0.0) / whole if whole else 1 / len(group)
            actual = None if outcome.actual is None else outcome.actual * part
            shared.append(replace(outcome, actual=actual, part=part))
    return sorted(shared, key=lambda outcome: (outcome.accepted, outcome.id))


def _measure(figure: str, run: Run) -> object:
    """A figure of a run; None where the run does not show it: what was restored took no time of its
    own."""
    if figure == "loss":
        return loss(run)
    if figure == "size":
        return run.size
    return None if run.outcome != "built" else run.seconds if figure == "seconds" else run.peak_mb


def _fall(before: object, after: object) -> float | None:
    if not isinstance(before, int | float) or not isinstance(after, int | float) or before <= 0:
        return None
    return (before - after) / before


def _calibration(gains: Sequence[tuple[float, float]]) -> float:
    ratios = [min(max(actual / expected, 0.0), 2.0) for expected, actual in gains if expected > 0]
    return (median(ratios) * len(ratios) + 2.0) / (len(ratios) + 2) if ratios else 1.0
