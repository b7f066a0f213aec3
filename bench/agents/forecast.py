"""How near the forecast at a third of training comes to the best validation loss, and what stopping
by it saves and costs.

python -m bench.agents.forecast [--folder DIR] [--curves FILE] [--domains N] [--data DIR]

Every training is real: the base ``tiny`` is adapted to embedded domains, and to parts of public
data sets (``--data``), at four learning rates each, the highest of which diverges. A domain's
forecasts are calibrated on the other domains. Those in ``CHOSEN_ON`` are left out: on them the
method and its constants were chosen. With ``--curves``, trainings that are in the file are not made
again.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench import machine
from bench.result_files import keep_result
from meetara_build.toolbox.divergence import nothing_left
from meetara_build.toolbox.forecast import Curve, Forecast, forecast

RATES = (5e-4, 2e-3, 6e-3, 2e-2)
CHOSEN_ON = (
    *("strategy", "preventive_care", "career_guidance", "skill_development", "operations"),
    *("time_management", "legal_business", "communication", "consulting", "sales"),
    *("marketing", "women_health", "home_management", "medication_management", "senior_health"),
    *("decision_making", "transportation", "academic_tutoring", "work_life_balance", "ai_ml"),
    *(
        "research_assistance",
        "project_management",
        "educational_technology",
        "emergency_care",
        "entrepreneurship",
    ),
)
SEED = 17
WORKERS = 2
PUBLIC_RECORDS = 100
PUBLIC = {
    "medquad.jsonl": ("question", "answer", "qtype", slice(2, 4)),
    "tldr.jsonl": ("description", "command", "language", slice(2, 4)),
    "gsm8k.jsonl": ("question", "answer", None, slice(0, 1)),
}
"""Of each file: question, answer, the field that splits it into domains, and which of those, the
largest first. On the larger kinds, and on other records of gsm8k.jsonl, the method was chosen."""
WORST_ERROR, HELD, WORST_HARM = 0.05, (0.7, 0.9), 0.002

Line = dict[str, Any]
Job = tuple[Path, str, list[Line] | None, float, bool]
"""The project, the domain, its records unless it is an embedded one, the learning rate, whether it
is watched."""


@dataclass(frozen=True)
class Training:
    """A finished training."""

    domain: str
    rate: float
    curve: Curve
    watched: bool

    @property
    def best(self) -> float:
        """Its figure."""
        assert self.curve.best is not None
        return self.curve.best

    @property
    def public(self) -> bool:
        """Whether it is of public data."""
        return " " in self.domain

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Training":
        """As it is kept."""
        curve = Curve([tuple(point) for point in line["curve"]], line["steps"], line["before"])
        return cls(line["domain"], line["rate"], curve, line.get("watched", False))


def make(job: Job) -> Line:
    """One training."""
    import torch

    torch.set_num_threads(1)
    folder, name, records, rate, watched = job
    trainer = _trainer(folder, name if records is None else None)
    if records is not None:
        parts = [trainer.encoded(records[at::5]) for at in range(5)]
        trainer.validation = parts.pop()
        training = [record for part in parts for record in part]
    else:
        training = trainer.encoded(trainer.training)
    watch, seen = _observer() if watched else None, list[int]()

    def observe(progress: Any) -> Any:
        seen.append(progress.steps)
        return watch(progress) if watch else None

    history, _ = trainer.train(training, {"learning_rate": rate}, SEED, observe)
    return {
        "domain": name,
        "rate": rate,
        "seed": SEED,
        "watched": watched,
        "steps": seen[-1],
        "curve": history.curve,
        "before": history.validation_before,
        "after": history.validation_after,
    }


@cache
def _trainer(folder: Path, domain: str | None) -> Any:
    """Of a domain; of any, for its base alone."""
    from bench.agents.short_trainings import Trainer
    from meetara_build.graph import load

    graph = load(folder)
    return Trainer(graph, domain or graph.domains[0])


def _observer() -> Any:
    """What quality_assurance does live."""
    import runpy

    plugin = Path(__file__).parents[2] / "plugins" / "quality_assurance.py"
    return runpy.run_path(str(plugin))["observe"]


def public(folder: Path | None) -> dict[str, list[Line]]:
    """Domains of public data, by name: records of one kind each, in an order drawn once."""
    found = {}
    for file, (asked, answered, kind, which) in PUBLIC.items() if folder else ():
        assert folder is not None
        rows = [
            json.loads(line) for line in (folder / file).read_text(encoding="utf-8").splitlines()
        ]
        by_kind: dict[str, list[Line]] = {}
        for row in rows:
            turns = [
                {"role": "user", "content": row[asked]},
                {"role": "assistant", "content": row[answered]},
            ]
            by_kind.setdefault(str(row[kind]) if kind else "later", []).append({"messages": turns})
        for name in sorted(by_kind, key=lambda name: (-len(by_kind[name]), name))[which]:
            random.Random(SEED).shuffle(by_kind[name])
            skipped = PUBLIC_RECORDS if kind is None else 0
            found[f"{Path(file).stem} {name}"] = by_kind[name][skipped : skipped + PUBLIC_RECORDS]
    return found


def trainings(folder: Path, kept: Path, domains: int, data: Path | None) -> list[Training]:
    """All that are wanted, made where they are not in the file."""
    from bench.agents.short_trainings import project

    graph = project(folder)
    shuffled = [*graph.domains]
    random.Random(0).shuffle(shuffled)
    names = [name for name in shuffled if name not in CHOSEN_ON]
    own = public(data)
    wanted: dict[tuple[str, float, bool], Job] = {}
    for name in [*names[:domains], *own]:
        for rate in RATES:
            wanted[name, rate, False] = (folder, name, own.get(name), rate, False)
        wanted[name, RATES[-1], True] = (folder, name, own.get(name), RATES[-1], True)
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    made = {(line["domain"], line["rate"], line.get("watched", False)): line for line in lines}
    missing = [job for key, job in wanted.items() if key not in made]
    with get_context("spawn").Pool(WORKERS) as pool, kept.open("a") as file:
        for number, line in enumerate(pool.imap_unordered(make, missing), 1):
            made[line["domain"], line["rate"], line["watched"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            if number % 20 == 0 or number == len(missing):
                print(f"  {number} of {len(missing)} trainings", flush=True)
    return [Training.of(made[key]) for key in wanted]


def foretold(found: Sequence[Training]) -> list[tuple[Training, Forecast]]:
    """The forecast for each training, calibrated on the other domains of its kind, as in a project
    of such domains."""
    said = []
    for one in found:
        others = [
            other for other in found if other.domain != one.domain and other.public == one.public
        ]
        begun = forecast(one.curve.first(), [other.curve for other in others])
        if begun is not None:
            said.append((one, begun))
    return said


def error(one: Training, said: Forecast) -> float:
    """Relative to the loss."""
    return abs(said.loss / one.best - 1)


def of_improvement(one: Training, value: float) -> float:
    """How wrong a forecast is as a share of what the training gained: easy where nothing was, so
    half a percent is the least."""
    assert one.curve.before is not None
    return abs(value - one.best) / max(one.curve.before - one.best, 0.005 * one.best)


def show(label: str, rows: Sequence[tuple[Training, Forecast]]) -> None:
    """A line of the table."""
    held = fmean(said.low <= one.best <= said.high for one, said in rows)
    width = median((said.high - said.low) / one.best for one, said in rows)
    naive = [one.curve.first().best or one.curve.before or 0.0 for one, _ in rows]
    print(
        f"{label:28} {len(rows):4} {median(error(*row) for row in rows):7.2%} "
        f"{median(of_improvement(one, said.loss) for one, said in rows):8.0%} "
        f"{median(of_improvement(one, value) for (one, _), value in zip(rows, naive, strict=True)):8.0%} {held:7.0%} {width:7.2%}"
    )


def stopping(found: Sequence[Training]) -> dict[float, tuple[float, float]]:
    """Print what ending trainings where nothing is left would have saved and cost; by rate, steps
    saved and worst cost."""
    print(
        f"\n{'stopped by the forecast':28} {'runs':>4} {'steps saved':>12} {'mean loss':>10} {'worst':>8}"
    )
    by_rate = {}
    for rate in RATES:
        harm, saved = [], []
        for one in (one for one in found if one.rate == rate):
            points = one.curve.points
            ends = (end for end in range(1, len(points)) if points[end - 1][2] is not None)
            stop = next(
                (end for end in ends if nothing_left(one.curve._replace(points=points[:end]))),
                len(points),
            )
            reached = one.curve._replace(points=points[:stop]).best
            assert reached is not None
            harm.append(reached / one.best - 1)
            saved.append(1 - stop / len(points))
        by_rate[rate] = fmean(saved), max(harm)
        print(
            f"{f'learning rate {rate:g}':28} {len(harm):4} {fmean(saved):12.0%} {fmean(harm):+10.3%} {max(harm):+8.3%}"
        )
    return by_rate


def watched(found: Sequence[Training]) -> dict[str, float]:
    """Print and return what watching did to trainings that diverge."""
    alone = {one.domain: one for one in found if one.rate == RATES[-1] and not one.watched}
    pairs = [(alone[one.domain], one) for one in found if one.watched]
    gains = [1 - with_it.best / without.best for without, with_it in pairs]
    steps = [
        1 - len(with_it.curve.points) / len(without.curve.points) for without, with_it in pairs
    ]
    print(
        f"\nwatched at {RATES[-1]:g}, where trainings diverge: {sum(gain > 0 for gain in gains)} of {len(pairs)} reached a lower "
        f"loss (median {median(gains):+.1%} of it gained, worst {min(gains):+.1%}), with {median(steps):+.0%} of the steps saved (median)"
    )
    return {
        "pairs": len(pairs),
        "lower": sum(gain > 0 for gain in gains),
        "higher": sum(gain < 0 for gain in gains),
        "median": median(gains),
        "more_steps": -median(steps),
    }


def main() -> None:
    """Print the tables."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "--folder", type=Path, help="keep base and data sets here, and use those that are there"
    )
    words.add_argument(
        "--curves", type=Path, help="keep the trainings' curves here, and use those that are there"
    )
    words.add_argument(
        "--domains", type=int, default=12, help="embedded domains that are looked at"
    )
    words.add_argument("--data", type=Path, help="the folder of the public data sets")
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        kept = given.curves or Path(scratch) / "curves.jsonl"
        every = trainings(
            given.folder or Path(scratch) / "project", kept, given.domains, given.data
        )
    found = [one for one in every if not one.watched]
    rows = foretold(found)
    print(
        f"\n{'forecast at a third':28} {'runs':>4} {'error':>7} {'of gain':>8} {'as seen':>8} {'held':>7} {'width':>7}"
    )
    for rate in RATES:
        show(f"learning rate {rate:g}", [row for row in rows if row[0].rate == rate])
    for label, own in (("embedded", False), ("public", True)):
        if some := [row for row in rows if row[0].public == own]:
            show(label, some)
    show("all", rows)
    stopped = stopping(found)
    worst = max(harm for _, harm in stopped.values())
    seen = watched(every)
    middle, held = (
        median(error(*row) for row in rows),
        fmean(said.low <= one.best <= said.high for one, said in rows),
    )
    if given.data:
        *usual, diverging = (stopped[rate] for rate in RATES)
        kinds = {
            kind: median(error(*row) for row in rows if row[0].public == public)
            for kind, public in (("embedded", False), ("public", True))
        }
        result = {
            "trainings": len(rows),
            "domains": len({one.domain for one, _ in rows}),
            "error": middle,
            "error_embedded": kinds["embedded"],
            "error_public": kinds["public"],
            "held": held,
            "stopping": {
                "saved_least": min(saved for saved, _ in usual),
                "saved_most": max(saved for saved, _ in usual),
                "harm": max(harm for _, harm in usual),
                "diverging": {"saved": diverging[0], "harm": diverging[1]},
            },
            "watched": seen,
        }
        keep_result("agents_forecast", result)
    fine = middle <= WORST_ERROR and HELD[0] <= held <= HELD[1]
    print(
        f"\nmedian error {middle:.2%} (at most {WORST_ERROR:.0%}), the 80% interval held {held:.0%} (70% to 90%): {_word(fine)}"
    )
    print(
        f"stopping early made the best loss at most {worst:.2%} worse (at most {WORST_HARM:.1%}): {_word(worst <= WORST_HARM)}"
    )


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    main()
