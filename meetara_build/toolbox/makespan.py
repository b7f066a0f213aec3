"""In which order domains are built, how long that takes, and which priorities make it shortest.

A domain is a chain of jobs. The scheduler starts, whenever a slot is free, the ready job of the
highest priority (list scheduling, Graham, SIAM J. Appl. Math. 17, 1969). With the longest chains
first it takes at most 4/3 of the shortest possible time; with any order at most twice as long.
"""

import heapq
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meetara_build.agents.snapshot import Context, Domain, Run
from meetara_build.graph import stages

CHAIN = tuple(row.name for row in stages.CHAIN)
"""The stages of a domain, one after the other."""
URGENT = tuple(row.name for row in stages.CHAIN if row.urgency)
"""Among domains of one priority these go first, as in the rules of Snakemake."""
WITHIN = 1.005
"""A makespan this many times the shortest found is as good: fewer domains then need a priority."""
LEAST_GAIN = 0.03
"""Share of the whole build's time that an order has to save to be worth a change."""
SHUFFLED = 5
"""Orders of equals that are tried for the usual makespan."""
MOST = 250
"""Domains that get a priority."""


class Job(NamedTuple):
    """A step: seconds, and what it occupies meanwhile."""

    stage: str
    seconds: float
    threads: int = 1
    gpus: int = 0


Chains = Mapping[str, Sequence[Job]]
"""By domain, its jobs, each after the one before."""


def makespan(
    chains: Chains,
    priorities: Mapping[str, int],
    slots: int,
    gpus: int = 0,
    ties: Sequence[str] = (),
) -> float:
    """Seconds until all is built, where the ready job of the highest priority is always the next.

    Between equals, that of the domain that ``ties`` names first is, and by default that of the
    first name.
    """
    places = {name: place for place, name in enumerate(ties or sorted(chains))}

    def waiting(name: str, at: int) -> tuple[int, bool, int, str, int]:
        return (
            -priorities.get(name, 0),
            chains[name][at].stage not in URGENT,
            places[name],
            name,
            at,
        )

    free, free_gpus, now = max(slots, 1), gpus, 0.0
    ready = [waiting(name, 0) for name in chains if chains[name]]
    running: list[tuple[float, str, int]] = []
    heapq.heapify(ready)
    while ready or running:
        later = []
        while ready:
            first = heapq.heappop(ready)
            name, at = first[-2:]
            threads, needed = min(chains[name][at].threads, slots), min(chains[name][at].gpus, gpus)
            if threads > free or needed > free_gpus:
                later.append(first)
                continue
            free, free_gpus = free - threads, free_gpus - needed
            heapq.heappush(running, (now + chains[name][at].seconds, name, at))
            if not free:
                break
        for left in later:
            heapq.heappush(ready, left)
        now, name, at = heapq.heappop(running)
        free += min(chains[name][at].threads, slots)
        free_gpus += min(chains[name][at].gpus, gpus)
        if at + 1 < len(chains[name]):
            heapq.heappush(ready, waiting(name, at + 1))
    return now


def usual(chains: Chains, priorities: Mapping[str, int], slots: int, gpus: int = 0) -> float:
    """The mean makespan over some orders of equals: Snakemake chooses between them in no order of
    its own."""
    took = []
    for seed in range(SHUFFLED):
        ties = sorted(chains)
        random.Random(seed).shuffle(ties)
        took.append(makespan(chains, priorities, slots, gpus, ties))
    return sum(took) / len(took)


def lower_bound(chains: Chains, slots: int) -> float:
    """Seconds that no order can beat: the work of all over the slots, or the longest chain."""
    work = sum(job.seconds * job.threads for jobs in chains.values() for job in jobs) / max(
        slots, 1
    )
    return max([work, *(length(jobs) for jobs in chains.values())])


def length(jobs: Sequence[Job]) -> float:
    """Seconds of a chain alone."""
    return sum(job.seconds for job in jobs)


def longest_first(
    chains: Chains, slots: int, gpus: int = 0, given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Priorities for a short makespan, for as few domains as will do, even if the shortest of the
    others came first: the longest gets the highest.

    ``given`` are priorities that stay as they are.
    """
    kept = dict(given or {})
    order = sorted(
        (name for name in chains if name not in kept),
        key=lambda name: (-length(chains[name]), name),
    )
    shortest = sorted(chains, key=lambda name: (length(chains[name]), name))
    found = []
    count = 0
    while count <= min(len(order), MOST):
        ranked = {name: count - place for place, name in enumerate(order[:count])}
        found.append((makespan(chains, {**kept, **ranked}, slots, gpus, shortest), ranked))
        count = max(count + 1, count + count // 4)
    best = min(seconds for seconds, _ in found)
    return next(ranked for seconds, ranked in found if seconds <= WITHIN * best)


class Expected(NamedTuple):
    """The chains of all domains, and which of them were measured in full."""

    chains: dict[str, list[Job]]
    measured: set[str]


def estimate_seconds(context: Context) -> Expected:
    """How long each step takes: as long as the last time; where it has not been built, by the size
    of its sources.

    Where nothing has been built, seconds are no more than proportions.
    """
    runs = {
        (name, stage): found[-1]
        for name in context.domains
        for stage in CHAIN
        if (found := context.runs_of(name, stage))
    }
    rates = {stage: _seconds_a_byte(context, runs, stage) for stage in CHAIN}
    chains = {
        name: [_job(domain, stage, runs.get((name, stage)), rates[stage]) for stage in CHAIN]
        for name, domain in context.domains.items()
    }
    measured = {name for name in context.domains if all((name, stage) in runs for stage in CHAIN)}
    return Expected(chains, measured)


def _job(domain: Domain, stage: str, run: Run | None, rate: float) -> Job:
    machine = domain.machine
    trained = stage == "adapter"
    shared = trained and machine.get("slots", 1) > 1  # one thread, and a share of the trainer's GPU
    gpus = int(trained and not shared and machine.get("device") == "cuda")
    if run is not None:
        threads = 1 if shared else int(run.recipe.get("threads") or 1)
        return Job(stage, run.seconds, threads, gpus)
    threads = int(machine.get("threads", 1)) if trained and not shared else 1
    return Job(stage, rate * _size(domain), threads, gpus)


def _seconds_a_byte(context: Context, runs: Mapping[tuple[str, str], Run], stage: str) -> float:
    rates = sorted(
        run.seconds / size
        for (name, at), run in runs.items()
        if at == stage and (size := _size(context.domains[name]))
    )
    unknown = 1e-4 if stage == "adapter" else 1e-5
    return rates[len(rates) // 2] if rates else unknown if not runs else 0.0


def _size(domain: Domain) -> int:
    return sum(path.stat().st_size for path in domain.sources if path.is_file())
