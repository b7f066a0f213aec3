"""The search of `meetara-build tune` against plain TPE, on real trainings: what each finds in equal
steps, and how soon.

python -m bench.agents.tuning [--seeds 3,4] [--trials N] [--domains NAME …] [--folder FOLDER]

Plain TPE is Optuna's sampler as it comes, choices being categories, every trial trained in full.
Ours tries the current configuration first, then the best of the (at most three) most similar
domains that were tuned before it in the same campaign, and stops poor trials early; the steps of
those earlier domains are counted in their own budgets, which are no larger than plain TPE's. Each
domain's budget is the steps that plain TPE takes for its trials; a trial of ours that ends beyond
it does not count.

The domains are embedded ones, on a base of one layer that trains in a second; what they share with
others is the space of conf/build.yaml, the searches' own code and the adapter stage's trainer. A
campaign with another seed is another order of the domains, another seed of the samplers and another
seed of the trainings.
"""

import argparse
import json
import math
import multiprocessing
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project

DOMAINS = (
    "nutrition",
    "fitness",
    "sleep",
    "programming",
    "ai_ml",
    "cybersecurity",
    "music",
    "photography",
    "art_appreciation",
    "writing",
    "financial",
    "legal",
)
TRIALS = 24
AT_LEAST_AS_GOOD, OF_THE_STEPS = 0.9, 0.5
BASE = {
    "model": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "layers": 1,
        "heads": 4,
        "kv_heads": 2,
        "positions": 1024,
    },
    "tokenizer": {"vocab_size": 2048},
    "parameters": 500_000,
}
SETS = {
    "training": {
        "epochs": 3,
        "max_steps": None,
        "validations_per_epoch": 2,
        "batch_tokens": 512,
        "learning_rate": 2e-3,
    },
    "data": {"validation": 0.3, "test": 0.1},
}
"""Where it differs from conf/base/tiny.yaml. More records to validate by: a lowest loss over five
records is mostly luck."""

Curve = list[tuple[int, float]]
"""Steps taken so far, and the lowest loss of a full training by then."""


@dataclass(frozen=True)
class Outcome:
    """One domain in one campaign: both searches' curves, and the loss of the current
    configuration."""

    domain: str
    seed: int
    current: float
    plain: Curve
    ours: Curve
    starts: int
    trials: int

    @property
    def budget(self) -> int:
        """The steps of both."""
        return self.plain[-1][0]

    @property
    def found(self) -> tuple[float, float]:
        """The lowest losses within it: plain TPE's and ours."""
        return lowest(self.plain, self.budget), lowest(self.ours, self.budget)

    @property
    def steps(self) -> tuple[float, float]:
        """The steps until plain TPE's lowest loss was reached: by itself and by ours."""
        loss = lowest(self.plain, self.budget)
        return reached(self.plain, loss), reached(self.ours, loss)


def lowest(curve: Curve, budget: int) -> float:
    """The lowest loss within so many steps."""
    return min((loss for steps, loss in curve if steps <= budget), default=math.inf)


def reached(curve: Curve, loss: float) -> float:
    """The steps after which a loss as low as this was there; infinite where it never was."""
    return next((steps for steps, found in curve if found <= loss), math.inf)


def project(folder: Path, domains: Sequence[str]) -> None:
    """A project with these domains, their datasets and the base built."""
    import yaml

    from meetara_build.engine.stage_run import run
    from meetara_build.graph import load

    if not (folder / "conf").is_dir():
        tiny_project(folder)
        base = yaml.safe_load((folder / "conf" / "base" / "tiny.yaml").read_text())
        base = {"base": {**base["base"], **BASE}, **SETS}
        text = f"# @package _global_\n{yaml.safe_dump(base)}"
        (folder / "conf" / "base" / "small.yaml").write_text(text)
    path = folder / "conf" / "build.yaml"
    build = yaml.safe_load(path.read_text())
    build |= {
        "defaults": ["_self_", {"base": "small"}, {"hardware": "cpu"}, {"domain": "???"}],
        "domains": list(domains),
    }
    path.write_text(yaml.safe_dump(build))
    graph = load(folder)
    for step in graph.above(("dataset", name) for name in domains):
        run(graph, step, cold=True)


def campaign(folder: Path, domains: Sequence[str], trials: int, seed: int) -> list[Outcome]:
    """Both searches of every domain, in an order of this seed's."""
    import optuna

    from meetara_build.config.resolve import Configuration
    from meetara_build.graph import load
    from meetara_build.graph.domain_similarity import similarities
    from meetara_build.tuning.seeding import Start
    from meetara_build.tuning.studies import SETTINGS, best

    _quiet()
    graph, build = load(folder), Configuration(folder).build
    alike = similarities(
        {name: [*map(Path, graph.step("dataset", name).sources.values())] for name in domains}
    )
    order = random.Random(seed).sample(list(domains), len(domains))
    tuned: dict[str, Start] = {}
    outcomes = []
    for domain in order:
        searches = _Searches(graph, build, domain, seed)
        plain, _ = searches.plain(trials)
        similar = sorted(tuned, key=lambda other: -alike[domain][other])
        ours, study = searches.ours(tuned, similar, plain[-1][0])
        within = [
            trial
            for trial, (steps, _) in zip(study.trials, ours, strict=True)
            if steps <= plain[-1][0]
        ]
        top = best(within)
        assert top is not None and isinstance(study, optuna.Study)
        tuned[domain] = Start(top.user_attrs[SETTINGS], domain, domain)
        current = study.trials[0].value
        outcomes.append(
            Outcome(domain, seed, current, plain, ours, searches.starts, len(study.trials))
        )
        print(f"seed {seed}, {domain}: {_line(outcomes[-1])}", flush=True)
    return outcomes


class _Searches:
    """One domain's base and records, loaded once for both searches."""

    def __init__(self, graph: Any, build: Any, domain: str, seed: int) -> None:
        from meetara_build.tuning.space import read_space
        from meetara_build.tuning.trainer import Trainer

        step = graph.step("adapter", domain)
        inputs = {name: graph.root / given.place.folder for name, given in step.inputs.items()}
        self.recipe = {**step.recipe, "seed": seed}
        self.space = read_space(build.tuning.space, self.recipe, "conf/build.yaml")
        self.trainer = Trainer(self.recipe, inputs, graph.root / "logs")
        self.reduction_factor = build.tuning.reduction_factor
        self.seed, self.starts = seed, 0

    def plain(self, trials: int) -> tuple[Curve, Any]:
        """TPE as Optuna has it, so many trials trained in full."""
        import optuna

        from meetara_build.tuning.space import Space

        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=self.seed), pruner=optuna.pruners.NopPruner()
        )
        plain = Space(
            tuple(one._replace(ordered=False) for one in self.space.dimensions), self.space.current
        )
        return self._followed(study, plain, lambda steps, count: count < trials), study

    def ours(
        self, tuned: Mapping[str, Any], similar: Sequence[str], budget: int
    ) -> tuple[Curve, Any]:
        """The search of `meetara-build tune`, until the budget is used up."""
        import optuna

        from meetara_build.tuning import search
        from meetara_build.tuning.seeding import NEIGHBOURS, starts

        study = optuna.create_study(
            sampler=search.sampler(self.seed), pruner=search.pruner(self.reduction_factor)
        )
        known = starts(self.space, tuned, {}, similar[:NEIGHBOURS])
        self.starts = len(known)
        search.prepare(study, self.space, known)
        return self._followed(study, self.space, lambda steps, count: steps < budget), study

    def _followed(self, study: Any, space: Any, goes_on: Any) -> Curve:
        from meetara_build.tuning.search import Objective
        from meetara_build.tuning.studies import STEPS, in_full

        objective, curve, steps, low = Objective(self.trainer, space, self.recipe), [], 0, math.inf
        while goes_on(steps, len(curve)):
            study.optimize(objective, n_trials=1)
            trial = study.get_trials(deepcopy=False)[len(curve)]
            steps += trial.user_attrs[STEPS]
            low = min(low, trial.value) if in_full(trial) else low
            curve.append((steps, low))
        return curve


def report(outcomes: Sequence[Outcome]) -> bool:
    """Print a line for each domain and campaign, and the figures; whether both bounds are kept."""
    print(
        "\nseed  domain            steps  current  plain TPE    ours  difference  steps to plain's best: plain    ours"
    )
    for one in outcomes:
        (plain, ours), (own, taken) = one.found, one.steps
        print(
            f"{one.seed:4}  {one.domain:16} {one.budget:6} {one.current:8.4f} {plain:10.4f} {ours:7.4f}"
            f" {ours / plain - 1:10.2%} {own:29.0f} {taken:7.0f}"
        )
    good = statistics.fmean(ours <= plain for plain, ours in (one.found for one in outcomes))
    strict = statistics.median(taken / own for own, taken in (one.steps for one in outcomes))
    whole = statistics.median(one.steps[1] / one.budget for one in outcomes)
    gains = [1 - ours / plain for plain, ours in (one.found for one in outcomes)]
    print(
        f"\nat least as good at equal steps: {good:.0%} of {len(outcomes)} (at least {AT_LEAST_AS_GOOD:.0%}); "
        f"median {statistics.median(gains):+.2%} loss less, worst {min(gains):+.2%}"
    )
    print(
        f"steps to plain TPE's lowest loss, of those after which plain TPE had it: {strict:.2f} (median; at most {OF_THE_STEPS}); "
        f"of plain TPE's whole search: {whole:.2f}"
    )
    result = {
        "domains": len({one.domain for one in outcomes}),
        "seeds": len({one.seed for one in outcomes}),
        "searches": len(outcomes),
        "good": round(good * len(outcomes)),
        "good_share": good,
        "median": statistics.median(gains),
        "worst": -min(gains),
        "steps": strict,
    }
    keep_result("agents_tuning", result)
    later = [one for one in outcomes if one.starts]
    alone = [one for one in outcomes if not one.starts]
    for name, some in (("with a tuned neighbour", later), ("without one", alone)):
        if some:
            share = statistics.fmean(one.found[1] <= one.found[0] for one in some)
            print(f"  {name}: at least as good in {share:.0%} of {len(some)}")
    return good >= AT_LEAST_AS_GOOD and strict <= OF_THE_STEPS


def _line(one: Outcome) -> str:
    plain, ours = one.found
    return f"{plain:.4f} plain, {ours:.4f} ours in {one.budget} steps, {one.trials} trials, {one.starts} from neighbours"


def _quiet() -> None:
    import optuna
    import torch
    from transformers.utils import logging

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def _campaigns(
    folder: Path, domains: Sequence[str], trials: int, seeds: Iterable[int]
) -> list[Outcome]:
    """One after the other on each core."""
    work = [(folder, domains, trials, seed) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(min(2, len(work))) as pool:
        return [one for found in pool.starmap(campaign, work, chunksize=1) for one in found]


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "--seeds", default="3,4", help="1 and 2 are those that the method was chosen on"
    )
    words.add_argument("--trials", type=int, default=TRIALS, help="of plain TPE, for each domain")
    words.add_argument("--domains", nargs="+", default=DOMAINS)
    words.add_argument("--folder", type=Path, help="keep the project here, and use it again")
    given = words.parse_args()
    print(machine.describe())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "project"
        project(folder, given.domains)
        outcomes = _campaigns(
            folder, given.domains, given.trials, [int(seed) for seed in given.seeds.split(",")]
        )
        (folder / "tuning.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    kept = report(outcomes)
    print(f"{(time.monotonic() - started) / 60:.0f} min")
    if not kept:
        raise SystemExit("a bound is missed")


if __name__ == "__main__":
    main()
