"""How a base's common start is trained."""

from typing import Literal

from meetara_build.stages.recipes.adapter import LoraRecipe
from meetara_build.stages.types import Recipe


class StartRecipe(Recipe):
    """LoRA of the shape that domains have, and its training on the pinned sample; all else is as
    ``training.settings`` has it."""

    base: str
    seed: int
    threads: int
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    max_tokens: int
    lora: LoraRecipe
    epochs: int
    batch_tokens: int
    learning_rate: float
    micro_batch_tokens: int | None
