"""What a training asks of whoever computes for it: the model in its own process, or a trainer that
several trainings share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn

from meetara_build.training.chat import Encoded
from meetara_build.training.settings import Settings


class Computation(Protocol):
    """A model's loss and its gradients. The weights that are trained, and their gradients, lie in
    the training's own model."""

    origin: str
    """Names the model's weights as they were before the first step."""

    @property
    def device(self) -> torch.device:
        """Where the weights that are trained lie."""

    def backward(
        self, records: Sequence[Encoded], counted_tokens: int, *, every_token: bool = False
    ) -> tuple[float, list[float]]:
        """Add the gradients of some records' loss, divided by ``counted_tokens``, to the weights',
        unless that loss is not finite.

        Returns:
            The summed cross-entropy of the tokens that count, in nats, and each record's part.

        Raises:
            MemoryError, RuntimeError: too little memory, as ``faults.ran_out_of_memory`` tells.
        """

    def mean_loss(
        self, examples: Sequence[Encoded], *, every_token: bool = False
    ) -> tuple[float, int]:
        """Mean cross-entropy in nats over the tokens that count, and how many they are.

        Raises:
            TrainingError: no token counts.
        """

    def describe(self) -> dict[str, object]:
        """How it computed, for the training's report."""


Prepare = Callable[[nn.Module, Sequence[Encoded], Settings], AbstractContextManager[Computation]]
"""Makes a computation of a model with an adapter, for training on these records."""
