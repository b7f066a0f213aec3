"""Whether a training joins others in a resident trainer's passes, or is trained alone and why."""

import contextlib
import fcntl
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from meetara_build import sockets
from meetara_build.training.chat import Encoded
from meetara_build.training.checkpoint import run_name
from meetara_build.training.computation import Computation
from meetara_build.training.kernels.lora import find_plain
from meetara_build.training.loop import check_trainable, prepare_model
from meetara_build.training.model import check_device
from meetara_build.training.precision import DTYPES
from meetara_build.training.settings import Settings
from meetara_build.training.slots.client import RefusedError, SlotComputation
from meetara_build.training.slots.trainer import Base
from meetara_build.training.state import trainable

MULTIPLE = 64
"""Tokens of a slot are a multiple of it, so that slots begin where products' blocks do."""
ANY, NONE = "any", "none"
POLL_SECONDS = 0.2


class Sharing:
    """How one training is computed where a machine's file allows ``slots``; what it became is known
    once it is over.

    Attributes:
        device_name: where it was computed.
    """

    def __init__(
        self,
        base: Path,
        precision: str,
        device: str,
        lora: Mapping[str, Any],
        threads: int,
        slots: int,
        records: Sequence[Encoded],
    ) -> None:
        """``records``: all that are trained on or validated with."""
        self.device_name = device
        self._base = Base(str(base.resolve()), precision, device, {**lora}, threads, slots, 0)
        self._longest = max((len(record.ids) for record in records), default=0)
        self._reason = ""

    @contextlib.contextmanager
    def prepare(
        self, model: nn.Module, training: Sequence[Encoded], settings: Settings
    ) -> Iterator[Computation]:
        """What computes for a model in this machine's memory: a resident trainer, or the model
        itself on the device. In a trainer's care its own frozen weights are let go of for good.

        Raises:
            TrainingError: nothing to train or to learn from.
            BuildError: no trainer begins.
            SetupError: the device is not there.
        """
        check_trainable(model, training, settings)
        most = settings.micro_batch_tokens or settings.batch_tokens
        base = self._base._replace(tokens=math.ceil(most / MULTIPLE) * MULTIPLE)
        self._reason = self._find_hindrance(model, base.tokens)
        if not self._reason:
            try:
                shared = _join(base, model)
            except RefusedError as fault:
                self._reason = str(fault)
            else:
                try:
                    yield shared
                finally:
                    self._reason, self.device_name = shared.company, shared.device_name
                    shared.close()
                return
        check_device(DTYPES[base.precision], base.device)
        with _wait_for_turn():
            model.to(base.device)
            with prepare_model(model, training, settings) as packed:
                yield packed

    def describe(self) -> dict[str, str]:
        """Who may be in a pass with this training; where nobody, why."""
        return describe_company(self._reason)

    def _find_hindrance(self, model: nn.Module, tokens: int) -> str:
        if self._longest > tokens:
            return f"a record has {self._longest} tokens, and a slot {tokens}"
        layers = sum(isinstance(part, LoraLayer) for part in model.modules())
        if len(find_plain(model)) < layers:
            return "some LoRA layers are more than LoRA on a plain linear layer"
        return ""


def describe_company(reason: str) -> dict[str, str]:
    """The same of any training: ``reason`` is why it is computed alone, if it is."""
    return {"company": NONE, "company_reason": reason} if reason else {"company": ANY}


def _join(base: Base, model: nn.Module) -> SlotComputation:
    """Have a trainer compute, and hold none of the base's weights besides.

    Raises:
        RefusedError: trainings cannot share this base or device.
    """
    shape = {"slots": base.slots, "tokens": base.tokens}
    origin, name = run_name(model, shape), run_name(model, {}, frozen=True)
    shared = SlotComputation(base, name, trainable(model), origin)
    for weight in model.parameters():
        if not weight.requires_grad:
            # No number, so that no one reads it unnoticed.
            weight.data = weight.new_full((), math.nan).expand(weight.shape)
    return shared


@contextlib.contextmanager
def _wait_for_turn() -> Iterator[None]:
    """One training alone at a time: the build lets as many begin as there are slots."""
    with (sockets.find_folder() / "alone.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Looks again rather than sleep: a job that uses no CPU passes for one that hangs.
                time.sleep(POLL_SECONDS)
        yield
