"""What the kept runs say together: costs by part, pooled held-out losses, paired differences."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.chain.recipes import RECIPES, TYPES, Run

AGAINST = "naive"
DOMAINS = 62
"""How many domains share what is made once a base."""
DRAWS = 2000
COVERED = 0.95

Cell = tuple[str, int]
Record = tuple[str, int]
"""A domain, and the place of a record in its held-out ones."""
Pairs = Mapping[Record, tuple[float, float]]
"""Nats of a record's answer, all seeds together: by the recipe, and by the one it is held
against."""


def list_cells(runs: Sequence[Run]) -> list[Cell]:
    """The domains and seeds that every recipe has finished; no other is compared."""
    done = {
        recipe: {(run.domain, run.seed) for run in runs if run.recipe == recipe}
        for recipe in RECIPES
    }
    return sorted(set.intersection(*done.values()), key=lambda cell: (cell[1], cell[0]))


def summarize_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures that are kept; without a cell that is whole there are none."""
    cells = list_cells(runs)
    if not cells:
        return {"cells": 0}
    whole = {
        recipe: [run for run in runs if run.recipe == recipe and (run.domain, run.seed) in cells]
        for recipe in RECIPES
    }
    recipes = {recipe: summarize_recipe(several) for recipe, several in whole.items()}
    for recipe, figures in recipes.items():
        figures["times_cheaper"] = recipes[AGAINST]["cpu_seconds"] / figures["cpu_seconds"]
        figures["times_cheaper_with_shared"] = (
            recipes[AGAINST]["with_shared"] / figures["with_shared"]
        )
        figures["against_naive"] = {
            kind: compare_losses(whole[recipe], whole[AGAINST], kind) for kind in TYPES
        }
    return {
        "cells": len(cells),
        "counts": {
            "domains": len({one[0] for one in cells}),
            "seeds": len({one[1] for one in cells}),
        },
        "domains": sorted({domain for domain, _ in cells}),
        "seeds": sorted({seed for _, seed in cells}),
        "commits": sorted({run.commit for several in whole.values() for run in several}),
        "records": sum(len(run.tokens) for run in whole[AGAINST]),
        "base_loss": pool_loss(whole[AGAINST], "base"),
        "peers_by_ours": recipes["peers"]["with_shared"] / recipes["ours"]["with_shared"],
        "recipes": recipes,
    }


def summarize_recipe(runs: Sequence[Run]) -> dict[str, Any]:
    """Means over a recipe's runs, so that parts add up; of memory the largest."""
    parts = average_parts(run.parts for run in runs)
    once = [run.shared for run in runs if run.shared]
    shared = average_parts(once) if once else {}
    total = sum(parts.values())
    return {
        "cpu_seconds": total,
        "parts": parts,
        "told": tell_parts(parts),
        "shared": shared,
        "shared_told": tell_parts(shared),
        "shared_cpu_seconds": sum(shared.values()),
        "with_shared": total + sum(shared.values()) / DOMAINS,
        "seconds": sum(run.seconds for run in runs) / len(runs),
        "peak_gb": max(run.peak_mb for run in runs) / 1000,
        "bytes": {
            name: sum(run.sizes[name] for run in runs) / len(runs) for name in ("files", "all")
        },
        "losses": {kind: pool_loss(runs, kind) for kind in TYPES},
    }


def average_parts(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each part, dearest first; a run without it had it for nothing."""
    listed = list(several)
    names = {name for parts in listed for name in parts}
    means = {name: sum(parts.get(name, 0.0) for parts in listed) / len(listed) for name in names}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def tell_parts(parts: Mapping[str, float]) -> str:
    """Parts in a line; those below half a CPU-second are left out."""
    return ", ".join(f"{name} {cost:.0f}" for name, cost in parts.items() if cost >= 0.5)


def pool_loss(runs: Sequence[Run], kind: str) -> float:
    """Nats a token over all held-out answers of all domains and seeds."""
    return sum(sum(run.nats[kind]) for run in runs) / sum(sum(run.tokens) for run in runs)


def pair_records(runs: Sequence[Run], others: Sequence[Run], kind: str) -> Pairs:
    """Each held-out record's nats by both, all seeds together.

    Raises:
        ValueError: the two were not judged on the same records.
    """
    by_cell = {(run.domain, run.seed): run for run in others}
    pairs: dict[Record, tuple[float, float]] = {}
    for run in runs:
        other = by_cell[run.domain, run.seed]
        if run.tokens != other.tokens:
            raise ValueError(
                f"{run.domain}, seed {run.seed}: {run.recipe} and {other.recipe} were judged on "
                "other records; remove the older one's file below the work folder's runs/"
            )
        for place, nats in enumerate(zip(run.nats[kind], other.nats[kind], strict=True)):
            mine, theirs = pairs.get((run.domain, place), (0.0, 0.0))
            pairs[run.domain, place] = (mine + nats[0], theirs + nats[1])
    return pairs


def compare_losses(runs: Sequence[Run], others: Sequence[Run], kind: str) -> dict[str, Any]:
    """How much higher the pooled loss is than the others', as a share of theirs: over all records,
    within what interval if other records had been held out, and in the worst domain."""
    pairs = pair_records(runs, others, kind)
    low, high = draw_interval(list(pairs.values()))
    domains = {domain for domain, _ in pairs}
    by_domain = {
        name: measure_excess([pair for (domain, _), pair in pairs.items() if domain == name])
        for name in sorted(domains)
    }
    return {
        "higher_by": measure_excess(list(pairs.values())),
        "low": low,
        "high": high,
        "by_domain": by_domain,
        "worst": max(by_domain.values()),
    }


def measure_excess(pairs: Sequence[tuple[float, float]]) -> float:
    """The sum of the first above that of the second, as a share of the second."""
    theirs = sum(pair[1] for pair in pairs)
    return (sum(pair[0] for pair in pairs) - theirs) / theirs


def draw_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A bootstrap interval over records: seeds of one record are no two records."""
    draw = random.Random(0)
    found = sorted(measure_excess(draw.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    cut = round(DRAWS * (1 - COVERED) / 2)
    return found[cut], found[-1 - cut]


def show_table(figures: Mapping[str, Any]) -> str:
    """The figures as people read them."""
    if not figures["cells"]:
        return "no domain and seed is finished by every recipe yet"
    lines = [
        f"domains {', '.join(figures['domains'])}; seeds {figures['seeds']}; "
        f"{figures['cells']} of both finished by every recipe; "
        f"base {figures['base_loss']:.4f}",
        f"{'recipe':8} {'CPU-s':>6} {'times':>6} {'GB':>5} {'MB':>5} {'F16':>7} {'Q8_0':>7} "
        f"{'Q4_K_M':>7}  F16 above naive (95%), worst domain",
    ]
    for recipe, one in figures["recipes"].items():
        losses = " ".join(f"{one['losses'][kind]:7.4f}" for kind in TYPES)
        than = one["against_naive"]["F16"]
        lines.append(
            f"{recipe:8} {one['cpu_seconds']:6.0f} {one['times_cheaper']:6.2f} "
            f"{one['peak_gb']:5.2f} {one['bytes']['files'] / 1e6:5.0f} {losses}  "
            f"{than['higher_by']:+.2%} ({than['low']:+.2%} to {than['high']:+.2%}), "
            f"{than['worst']:+.2%}"
        )
    for recipe, one in figures["recipes"].items():
        lines.append(f"{recipe}: {one['told']}; once a base: {one['shared_told']}")
    return "\n".join(lines)
