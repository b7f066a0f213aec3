"""A training that is none: its loss is a known function of the settings, so that a search can be
followed."""

import math
from collections.abc import Mapping
from typing import Any

from meetara_build.config.schema import Range
from meetara_build.errors import TrainingError
from meetara_build.training.settings import History, Observer, Progress
from meetara_build.tuning.space import Space, read_space

VALIDATIONS, STEPS = 6, 10
RECIPE: dict[str, Any] = {
    "seed": 17,
    "lora": {
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "targets": "all-linear",
        "rslora": False,
        "dora": False,
    },
    "training": {
        "epochs": 3,
        "max_steps": None,
        "batch_tokens": 512,
        "micro_batch_tokens": None,
        "learning_rate": 2e-4,
        "warmup_share": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "patience": 3,
        "validations_per_epoch": 2,
    },
}
RANGES = {
    "lora.rank": Range(choices=[4, 8, 16, 32]),
    "training.learning_rate": Range(low=3e-5, high=2e-2, log=True),
}
BEST_RATE = 3e-3


def small_space() -> Space:
    return read_space(RANGES, RECIPE, "conf/build.yaml")


def final_loss(recipe: Mapping[str, Any]) -> float:
    """Lowest at ``BEST_RATE`` and rank 32."""
    off = math.log10(recipe["training"]["learning_rate"] / BEST_RATE)
    return 4.0 + off * off + 0.1 * math.log2(32 / recipe["lora"]["rank"])


class MadeUp:
    """Falls to its final loss over six validations; above a learning rate of 0.015 it diverges."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Any]] = []

    def train(self, recipe: Mapping[str, Any], observe: Observer | None = None) -> History:
        self.trained.append({"lora.rank": recipe["lora"]["rank"], **recipe["training"]})
        if recipe["training"]["learning_rate"] > 0.015:
            raise TrainingError("step 3: the loss is nan: lower training.learning_rate")
        losses = [
            final_loss(recipe) + (VALIDATIONS - at) / VALIDATIONS
            for at in range(1, VALIDATIONS + 1)
        ]
        for step in range(1, VALIDATIONS * STEPS + 1):
            checked = losses[step // STEPS - 1] if step % STEPS == 0 else None
            if observe is not None:
                observe(
                    Progress(step, VALIDATIONS * STEPS, 0, 5.0, checked, 1e-3, 1.0, 512, 100, 1.0)
                )
        return History(validation_after=losses[-1])
