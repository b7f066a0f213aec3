"""What the training loop is told, what it shows while it runs, and what it hands back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Settings:
    """How to train. Tokens count prompts too, except where they are called completion tokens; what
    several records begin with counts as often as it occurs, though it is computed once.

    Attributes:
        batch_tokens: most tokens of one optimizer step; only whole records.
        micro_batch_tokens: most tokens in memory at once, gradients are summed up to the batch;
            None is the batch.
        gradient_checkpointing: keep the layers' inputs alone, and work the rest out again in the
            backward pass (Chen et al., arXiv 1604.06174); the result is the same.
        schedule: "cosine" falls to zero at the last step, "constant" stays; both after a linear
            warm-up.
        warmup_share: share of all steps.
        patience: validations without a new best before training stops.
        checkpoint_seconds: seconds between checkpoints.
        loss_on_prompt: count every token, as in pretraining.
    """

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
    checkpoint_seconds: float = 120.0
    loss_on_prompt: bool = False
    seed: int = 0


Point = tuple[int, float, float | None, float]
"""step, training loss, validation loss if it was measured, learning rate"""


class Action(StrEnum):
    """All that an observer may ask for. Of a step that failed, two help; any other ends the
    training with its error.

    ``halve_micro_batch``: fewer tokens at once from the next step on; a step that ran out of memory
    is tried again so.
    ``roll_back``: back to the best weights so far by validation, or the first ones, with half the
    learning rate and a fresh optimizer, and on with the next batch.
    """

    STOP = "stop"
    LOWER_LEARNING_RATE = "lower_learning_rate"
    HALVE_MICRO_BATCH = "halve_micro_batch"
    CHECKPOINT = "checkpoint"
    ABORT = "abort"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Progress:
    """What an observer sees after each step, and of a step that failed; losses are nats per counted
    token.

    Attributes:
        curve: the points of all steps so far, this one's last.
        fault: "out_of_memory" or "not_finite": the step after ``step`` was tried and not taken. The
            loss and the gradient's norm are then that step's, NaN where they are not known.
        validation_before: validation loss before the first step; None without validation records.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    gradient_norm: float
    micro_batch_tokens: int
    completion_tokens: int
    seconds: float
    curve: Sequence[Point] = ()
    fault: str | None = None
    validation_before: float | None = None


Observer = Callable[[Progress], Action | None]


@dataclass(frozen=True)
class History:
    """What happened; seconds, CPU-seconds and memory differ from run to run, the rest does not.

    Attributes:
        computed: which short cuts the trainer took, and which parts of the model fell back.
        actions: what observers did, and after which step; a checkpoint changes nothing, so it is
            not among them.
        micro_batch_tokens: at the end.
        losses: for each training record and epoch, its loss as it came by, in nats per counted
            token; None where it did not. How it falls tells easy from hard and wrong records
            (Swayamdipta et al., arXiv 2009.10795).
    """

    curve: list[Point] = field(default_factory=list)
    computed: dict[str, object] = field(default_factory=dict)
    actions: list[tuple[int, str]] = field(default_factory=list)
    micro_batch_tokens: int = 0
    losses: list[list[float | None]] = field(default_factory=list)
    validation_before: float | None = None
    validation_after: float | None = None
    best_step: int = 0
    stopped_early: bool = False
    tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
