"""Trainings that are compared with one another, two at a time; each is made once, and kept with its
figures in a folder.

A trial is a training of one domain on the base ``tiny``: as it comes (cold), from another domain's
adapter (warm), with other domains' records (joint), or with other settings. It takes as many steps
as the recipe's epochs need, 60 at most for each domain whose records are in it, is validated after
every second one, and never stops early, so that curves can be compared. Its result is its best
validation loss, and the loss of those weights on the test records, which nothing else looks at.
"""

import argparse
import contextlib
import json
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine
from meetara_build.graph import Graph

WORKERS = 2
SEED = 17
STEPS, BETWEEN = 60, 2
"""Steps of a trial, and steps from one validation to the next."""
NEVER = 10_000
"""Validations without a better one before a trial would stop."""


@dataclass(frozen=True)
class Trial:
    """One training; ``changes`` are keys of the configuration and their values."""

    domain: str
    warm: str | None = None
    joint: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What it is kept by."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Result:
    """What came of a trial: validation losses by step, the best of them, and its weights' loss on
    the test records."""

    curve: list[tuple[int, float]]
    before: float
    after: float
    test: float
    records: int
    seconds: float

    def steps_to(self, loss: float) -> int | None:
        """The first step with a validation loss as low as this; None if there is none."""
        return next((step for step, value in self.curve if value <= loss), None)

    def after_steps(self, steps: int) -> float:
        """The validation loss after so many steps, or as soon after as it was measured."""
        return next(value for step, value in self.curve if step >= steps)

    @property
    def steps(self) -> int:
        """How many there were."""
        return self.curve[-1][0]


class Trials:
    """Makes trials, and remembers what came of them."""

    def __init__(self, folder: Path) -> None:
        from bench.agents import short_trainings

        self.graph: Graph = short_trainings.project(folder / "project")
        self.domains = self.graph.domains
        self.weights = folder / "weights"
        self.weights.mkdir(exist_ok=True)
        self.kept = folder / "results.jsonl"
        lines = self.kept.read_text().splitlines() if self.kept.exists() else []
        self.results = {line["trial"]: Result(**line["result"]) for line in map(json.loads, lines)}

    def make(self, wanted: Iterable[Trial]) -> None:
        """See that these are made, and before them the adapters that they begin from."""
        trials = list(dict.fromkeys(wanted))
        teachers = dict.fromkeys(Trial(trial.warm) for trial in trials if trial.warm)
        for some in (list(teachers), trials):
            missing = [trial for trial in some if trial.name not in self.results]
            with multiprocessing.get_context("fork").Pool(WORKERS, _one_thread) as pool:
                made = pool.imap(self._work, missing)
                for number, (trial, result) in enumerate(zip(missing, made, strict=True), 1):
                    self.results[trial.name] = result
                    with self.kept.open("a") as file:
                        file.write(
                            json.dumps({"trial": trial.name, "result": asdict(result)}) + "\n"
                        )
                    _say(number, len(missing))

    def __getitem__(self, trial: Trial) -> Result:
        """What came of one that was made."""
        return self.results[trial.name]

    def similarities(self) -> dict[str, dict[str, float]]:
        """How alike the domains are, as agents see it."""
        from meetara_build.graph.domain_similarity import similarities

        return similarities(
            {
                name: [*map(Path, self.graph.step("dataset", name).sources.values())]
                for name in self.domains
            }
        )

    def _work(self, trial: Trial) -> Result:
        from bench.agents.short_trainings import Trainer
        from meetara_build.stages.adapter import save_adapter
        from meetara_build.training.batches import batches
        from meetara_build.training.kernels.lora import attach, begin_from
        from meetara_build.training.loop import evaluate, train
        from meetara_build.training.model import load_model
        from meetara_build.training.settings import Settings

        started = time.monotonic()
        own = Trainer(self.graph, trial.domain)
        held_out = {record["id"] for side in ("validation", "test") for record in own.records(side)}
        others = [record for name in trial.joint for record in Trainer(self.graph, name).training]
        records = own.training + [record for record in others if record["id"] not in held_out]
        training, lora = (
            _changed(own.recipe[part], part, trial.changes) for part in ("training", "lora")
        )
        known = {
            key: value for key, value in training.items() if key in Settings.__dataclass_fields__
        }
        settings = Settings(
            **{
                **known,
                "seed": SEED,
                "max_steps": STEPS * (1 + len(trial.joint)),
                "patience": NEVER,
            }
        )
        learnt = own.encoded(records)
        steps = len(batches(learnt, settings.batch_tokens, SEED, 0))
        settings = replace(settings, validations_per_epoch=max(1, steps // BETWEEN))
        model = attach(load_model(own.base, _float32()), lora, SEED)
        if trial.warm:
            begin_from(model, self.weights / trial.warm / "adapter_model.safetensors")
        history = train(model, learnt, own.validation, settings)
        if trial == Trial(trial.domain):
            (self.weights / trial.domain).mkdir(exist_ok=True)
            save_adapter(model, own.base.name, self.weights / trial.domain)
        curve = [
            (step, validation) for step, _, validation, _ in history.curve if validation is not None
        ]
        assert history.validation_before is not None and history.validation_after is not None
        test, _ = evaluate(model, own.test)
        return Result(
            curve,
            history.validation_before,
            history.validation_after,
            test,
            len(records),
            time.monotonic() - started,
        )


def _changed(
    given: Mapping[str, Any], part: str, changes: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    own = {key.partition(".")[2]: value for key, value in changes if key.partition(".")[0] == part}
    return {**given, **own}


def _float32() -> Any:
    import torch

    return torch.float32


def _one_thread() -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)


def _say(number: int, of: int) -> None:
    if number % 10 == 0 or number == of:
        print(f"  {number} of {of} trainings", flush=True)


@contextlib.contextmanager
def opened(words: str | None, domains: int) -> Iterator[tuple[argparse.Namespace, Trials]]:
    """A benchmark's options and trials; without ``--folder`` everything is made anew, and thrown
    away at the end."""
    parser = argparse.ArgumentParser(
        description=words, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep base, data sets and trainings here, and use those that are there",
    )
    parser.add_argument(
        "--domains", type=int, default=domains, help="how many domains are looked at"
    )
    options = parser.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(exist_ok=True, parents=True)
        yield options, Trials(folder)


def nearest(alike: Mapping[str, Mapping[str, float]], name: str) -> list[str]:
    """The other domains, the most similar first."""
    others = [other for other in alike if other != name]
    return sorted(others, key=lambda other: (-alike[name][other], other))


def with_near_neighbours(alike: Mapping[str, Mapping[str, float]], count: int) -> Sequence[str]:
    """The domains that have the most similar neighbours."""
    return sorted(alike, key=lambda name: (-alike[name][nearest(alike, name)[0]], name))[:count]
