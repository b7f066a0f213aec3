"""What a plan will take: time, memory, disk and money, each with a range and with where it comes
from.

In this order: earlier runs of the same step on the same machine; runs of the same stage for other
domains, by a straight line through their times over their workloads; the times of a reference
machine, scaled by a short probe of this one.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from meetara_build.graph import Graph
from meetara_build.plan import MAYBE, RESTORE, RUN, Item, Plan
from meetara_build.plan.workload import output_size, workload
from meetara_build.store.journal import Run
from meetara_build.store.manifest import Manifest

HISTORY, SIMILAR, MODEL = "history", "similar", "model"
RECENT = 5
"""Runs of a step that count: older ones were on other code, or beside other work."""
NEAR = 1.25
"""Workloads that differ by no more are compared by their ratio alone."""
FITTED = 80
"""Runs of a stage that a line is laid through: all pairs of them are looked at."""
SPREAD = {HISTORY: 1.25, SIMILAR: 1.5, MODEL: 3.0}
"""How far from its middle a range reaches at least: machines share their cores with other work."""
RESTORE_SECONDS, RESTORE_MB = 0.3, 60.0

REFERENCE_PROBE = 0.055
"""Seconds that the probe takes on the machine whose times the table of stages has: two cores of an
AMD EPYC without AVX-512."""


class Estimate(NamedTuple):
    """One step's: seconds (low, middle, high), peak memory in MB, bytes on disk, and where the
    figures come from."""

    low: float
    seconds: float
    high: float
    peak_mb: float
    size: float
    source: str


class Total(NamedTuple):
    """A plan's: wall time in seconds, memory of the jobs at once in MB, bytes added to the disk,
    and money in dollars.

    ``high`` includes every MAYBE. ``sources`` counts the steps by where their estimate comes from.
    """

    low: float
    seconds: float
    high: float
    peak_mb: float
    size: float
    size_high: float
    dollars: float | None
    dollars_high: float | None
    jobs: int
    sources: dict[str, int]


class Estimator:
    """Estimates steps from a history.

    ``machine`` is where the build will run, if that is known; ``probe_seconds`` what the probe took
    there, if it was made.
    """

    def __init__(
        self,
        graph: Graph,
        made: Plan,
        runs: Iterable[Run],
        machine: str,
        probe_seconds: float | None,
    ) -> None:
        self.graph, self.manifests, self.probe_seconds = graph, made.manifests, probe_seconds
        self.by_step: dict[tuple[str, str], list[Run]] = {}
        self.by_stage: dict[str, list[Run]] = {}
        self.lines: dict[tuple[str, str], tuple[float, float]] = {}
        here = set(graph.machines.values())
        for run in runs:
            if (
                run.outcome == "built"
                and run.work
                and run.machine == machine
                and run.hardware in here
            ):
                self.by_step.setdefault((run.stage, run.target), []).append(run)
                self.by_stage.setdefault(run.stage, []).append(run)

    def of(self, item: Item) -> Estimate:
        """What a step will take if it is done as planned; a MAYBE as if it were worked out."""
        if item.action == RESTORE:
            low, high = RESTORE_SECONDS / 2, RESTORE_SECONDS * 2
            return Estimate(low, RESTORE_SECONDS, high, RESTORE_MB, 0.0, HISTORY)
        step = item.step
        work = workload(step, self._manifest(item))
        own = self._same_hardware(self.by_step.get((step.stage, step.target), ()), step.target)[
            -RECENT:
        ]
        if near := [run for run in own if 1 / NEAR < work / run.work < NEAR]:
            return self._estimate_measured(
                item, [run.seconds * work / run.work for run in near], near, HISTORY
            )
        alike = self._same_hardware(self.by_stage.get(step.stage, ()), step.target)
        if len(alike) > 1 or own:
            start, rate = self._fit(step.stage, self.graph.hardware(step.target), alike)
            errors = [run.seconds / max(start + rate * run.work, 1e-3) for run in alike]
            return self._estimate_measured(
                item, [(start + rate * work) * error for error in errors], own or alike, SIMILAR
            )
        start, rate = step.row.seconds
        seconds = (start + rate * work) * (self.probe_seconds or REFERENCE_PROBE) / REFERENCE_PROBE
        size = output_size(step, self._manifest(item))
        peak = step.row.peak_mb - 600.0 + step.memory_mb
        return Estimate(
            seconds / SPREAD[MODEL], seconds, seconds * SPREAD[MODEL], max(peak, 450.0), size, MODEL
        )

    def _fit(self, stage: str, hardware: str, runs: Sequence[Run]) -> tuple[float, float]:
        if (stage, hardware) not in self.lines:
            self.lines[stage, hardware] = fit([(run.work, run.seconds) for run in runs])
        return self.lines[stage, hardware]

    def _estimate_measured(
        self, item: Item, seconds: Sequence[float], runs: Sequence[Run], source: str
    ) -> Estimate:
        middle = statistics.median(seconds)
        low, high = min(*seconds, middle / SPREAD[source]), max(*seconds, middle * SPREAD[source])
        last = self.manifests.get((item.step.stage, item.step.target))
        size = statistics.median(run.size for run in runs)
        if last is not None and source == HISTORY:
            size = runs[-1].size
        return Estimate(
            low, middle, high, statistics.median(run.peak_mb for run in runs), size, source
        )

    def _same_hardware(self, runs: Iterable[Run], target: str) -> list[Run]:
        return [run for run in runs if run.hardware == self.graph.hardware(target)]

    def _manifest(self, item: Item) -> "_Inputs":
        return _Inputs(item, self.manifests)


class _Inputs:
    """Manifests of a step's inputs as they are now: those of what is still to run are the nearest
    that there is."""

    def __init__(self, item: Item, manifests: Mapping[tuple[str, str], Manifest]) -> None:
        self.item, self.manifests = item, manifests

    def __call__(self, name: str) -> Manifest | None:
        given = self.item.step.inputs.get(name)
        return self.manifests.get((given.stage, given.target)) if given else None


def total(
    made: Plan, estimates: Mapping[str, Estimate], jobs: int, usd_per_hour: float | None
) -> Total:
    """A whole plan's estimate, with so many threads at once; ``estimates`` by the step's name."""
    items = made.to_do()
    sure = [item for item in items if item.action != MAYBE]
    low = _wall([(item, estimates[item.step.name].low) for item in sure], jobs)
    middle = _wall([(item, estimates[item.step.name].seconds) for item in sure], jobs)
    high = _wall([(item, estimates[item.step.name].high) for item in items], jobs)
    peaks = sorted((estimates[item.step.name].peak_mb for item in items), reverse=True)
    sources: dict[str, int] = {}
    for item in items:
        source = estimates[item.step.name].source
        sources[source] = sources.get(source, 0) + 1
    kept = [item for item in items if item.step.keep and item.action != RESTORE]
    size = sum(estimates[item.step.name].size for item in kept if item.action == RUN)
    size_high = sum(estimates[item.step.name].size for item in kept)
    money = [
        None if usd_per_hour is None else seconds / 3600 * usd_per_hour
        for seconds in (middle, high)
    ]
    return Total(
        low, middle, high, sum(peaks[:jobs]), size, size_high, money[0], money[1], jobs, sources
    )


def _wall(timed: Sequence[tuple[Item, float]], jobs: int) -> float:
    """Time of steps that wait for each other, so many threads at once: the longer of the longest
    chain and of an even share."""
    ends: dict[tuple[str, str], float] = {}
    for item, seconds in timed:
        above = (ends.get((given.stage, given.target), 0.0) for given in item.step.inputs.values())
        ends[item.step.stage, item.step.target] = seconds + max(above, default=0.0)
    share = sum(seconds * min(item.step.threads, jobs) for item, seconds in timed) / jobs
    return max(share, *ends.values()) if ends else 0.0


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Start and slope, neither below zero, of the line through points (Theil 1950, Sen 1968: the
    median of the slopes of all pairs, so that a run beside other work draws it nowhere); through
    zero where the workloads hardly differ."""
    points = points[-FITTED:]
    middle_x, middle_y = (statistics.median(values) for values in zip(*points, strict=True))
    slopes = [
        (y2 - y1) / (x2 - x1)
        for (x1, y1), (x2, y2) in combinations(points, 2)
        if abs(x2 - x1) > 0.05 * middle_x
    ]
    if len(slopes) < len(points):
        return 0.0, middle_y / middle_x
    slope = max(statistics.median(slopes), 0.0)
    start = statistics.median(seconds - slope * work for work, seconds in points)
    return (
        (start, slope)
        if start >= 0
        else (0.0, statistics.median(seconds / work for work, seconds in points))
    )
