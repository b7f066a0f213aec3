"""How an adapter is trained."""

from typing import Literal

from meetara_build.stages.types import Recipe


class LoraRecipe(Recipe):
    """LoRA's shape, as PEFT names it."""

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False


class TrainingRecipe(Recipe):
    """How it is trained, from where, on what else, and who watches: ``warm_start`` is the digest of
    another adapter's weights."""

    epochs: int
    batch_tokens: int
    learning_rate: float
    max_steps: int | None = None
    micro_batch_tokens: int | None = None
    gradient_checkpointing: bool = False
    warmup_share: float = 0.05
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    patience: int = 3
    validations_per_epoch: int = 2
    warm_start: str | None = None
    joint: list[str] = []
    topic_weights: dict[str, int] = {}
    observers: list[str] = []


class AdapterRecipe(Recipe):
    """LoRA and its training; ``start``: from the base's common start, where that is of LoRA's
    shape. ``slots`` of a resident trainer's passes, if more than one, decide its rounding; who else
    is in them does not. ``checkpoint_seconds`` is obeyed, and decides no byte."""

    domain: str
    base: str
    seed: int
    threads: int
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    loss_on_prompt: bool
    max_tokens: int
    lora: LoraRecipe
    training: TrainingRecipe
    start: bool = False
    slots: int = 1
    checkpoint_seconds: float = 120.0

    @property
    def shared_slots(self) -> int:
        """How many trainings share a resident trainer's passes; 1 where it is trained alone."""
        return 1 if self.reason_alone else self.slots

    @property
    def reason_alone(self) -> str:
        """Why slots cannot carry such a training; empty where they can."""
        if self.lora.dora:
            return "lora.dora"
        if self.lora.dropout:
            return "lora.dropout"
        return "training.gradient_checkpointing" if self.training.gradient_checkpointing else ""
