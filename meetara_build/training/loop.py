"""Training and evaluation: what the stages call."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.chat import Encoded
from meetara_build.training.checkpoint import run_name
from meetara_build.training.computation import Prepare
from meetara_build.training.heap import give_back_memory
from meetara_build.training.kernels.frozen import name_base
from meetara_build.training.kernels.fuse import fuse
from meetara_build.training.kernels.packed import PackedModel, inner_model
from meetara_build.training.run import Run
from meetara_build.training.schedule import count_tokens
from meetara_build.training.settings import Action, History, Observer, Progress, Settings
from meetara_build.training.state import trainable
from meetara_build.training.targets import output_layer

__all__ = [
    "Action",
    "History",
    "Observer",
    "Progress",
    "Settings",
    "evaluate",
    "prepare_model",
    "train",
]


def train(
    model: nn.Module,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    settings: Settings,
    checkpoint_folder: Path | None = None,
    observe: Observer | None = None,
    prepare: Prepare | None = None,
) -> History:
    """Train whatever parameters of ``model`` require a gradient; leaves it with the best weights by
    validation loss.

    The same model, data, settings and number of threads give the same weights, also when a run was
    interrupted and goes on from ``checkpoint_folder``, if ``observe`` always acts alike. Without
    validation records the last weights stay. ``prepare`` makes what computes, if another does than
    this process.

    Raises:
        TrainingError: nothing to train or to learn from; a step that ran out of memory, or whose
            loss or gradient is not finite, and no observer that helped; or an observer's abort.
    """
    with (prepare or prepare_model)(model, training, settings) as packed:
        return Run(model, packed, training, validation, settings, checkpoint_folder, observe).go()


@contextlib.contextmanager
def prepare_model(
    model: nn.Module, training: Sequence[Encoded], settings: Settings
) -> Iterator[PackedModel]:
    """The model as its fastest exact computation, for one run or several.

    Raises:
        TrainingError: nothing to train or to learn from.
    """
    check_trainable(model, training, settings)
    inner = inner_model(model)
    origin = run_name(model, {"base": name_base(model.parameters())})
    layers = fuse(model, output_layer(inner))
    with contextlib.ExitStack() as after:
        after.callback(layers.undo)
        packed = PackedModel(model, training, layers, origin)
        after.callback(packed.release)
        packed.rearrange_head()
        packed.drop_weights()
        give_back_memory()
        if settings.gradient_checkpointing:
            _checkpoint(inner)
            after.callback(inner.activation_checkpointing_disable)
        yield packed


def evaluate(
    model: nn.Module, examples: Sequence[Encoded], *, every_token: bool = False
) -> tuple[float, int]:
    """Mean cross-entropy in nats over the tokens that count, and how many they are; the model's
    mode stays.

    Raises:
        TrainingError: no token counts.
    """
    packed = PackedModel(model, examples)
    try:
        return packed.mean_loss(examples, every_token=every_token)
    finally:
        packed.release()


def _checkpoint(model: PreTrainedModel) -> None:
    if not model.supports_gradient_checkpointing:
        raise TrainingError(
            f"{type(model).__name__} cannot work its layers out again: set "
            "training.gradient_checkpointing to false"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def check_trainable(model: nn.Module, training: Sequence[Encoded], settings: Settings) -> None:
    """Refuse what no training can be made of.

    Raises:
        TrainingError: nothing to train or to learn from.
    """
    if not trainable(model):
        raise TrainingError(
            "no parameter of the model requires a gradient: attach an adapter first"
        )
    if not sum(count_tokens(record, settings.loss_on_prompt) for record in training):
        raise TrainingError(
            f"zero trainable tokens in {len(training)} training records: every answer is empty or "
            "cut off; look at the dataset's train.jsonl and at data.max_tokens"
        )
