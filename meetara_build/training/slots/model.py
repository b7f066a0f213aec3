"""A base that computes the losses and gradients of several adapters in one pass."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from meetara_build.training.kernels.frozen import FrozenMatrix, can_rearrange
from meetara_build.training.kernels.fuse import fuse
from meetara_build.training.kernels.loss import linear_cross_entropy
from meetara_build.training.kernels.packed import Row, inner_model
from meetara_build.training.slots import attention
from meetara_build.training.slots.product import share_layer
from meetara_build.training.state import trainable


class Work(NamedTuple):
    """What one training asks of a pass.

    weights: [P], its adapter's, end to end in the order of the model's parameters, float32.
    row: whole records, T tokens at most.
    counted_tokens: what the loss is divided by for gradients; None asks for the loss alone.
    """

    weights: Tensor
    row: Row
    counted_tokens: int | None


class Result(NamedTuple):
    """The summed cross-entropy in nats, each record's part, and the gradients, [P], where they were
    asked for and the loss is finite."""

    total: float
    by_record: list[float]
    gradients: Tensor | None


class SlotModel:
    """A base with slots of ``tokens`` rows for adapters that are shaped like its own.

    From its making on the model computes passes alone, and what its own adapter holds no longer
    matters.
    """

    def __init__(self, adapted: PeftModel, tokens: int) -> None:
        self.inner: Any = inner_model(adapted)
        self.tokens = tokens
        own = list(trainable(adapted).values())
        self._places = {id(weight): place for place, weight in enumerate(own)}
        self._shapes = [weight.shape for weight in own]
        self._weights: list[Tensor] = []
        self._head = self.inner.get_output_embeddings()  # type: ignore[no-untyped-call]
        weight = self._head.weight
        self._matrix = FrozenMatrix(weight, rearrange=can_rearrange([weight]))
        self._softcap = getattr(
            self.inner.config.get_text_config(), "final_logit_softcapping", None
        )
        layers = fuse(
            adapted, self._head, lambda layer, matrix: share_layer(layer, matrix, self._find)
        )
        layers.lay_out_backward()
        self.inner.set_attn_implementation(attention.NAME)
        self.inner.eval()  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.inner.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self.inner.dtype
        return dtype

    @property
    def numbers(self) -> int:
        """P, of one adapter."""
        return sum(shape.numel() for shape in self._shapes)

    def compute(self, works: Sequence[Work | None]) -> list[Result | None]:
        """One pass, with a slot for each of ``works``; an empty one computes as much, for nobody.

        Always with what a backward pass needs, so that a loss does not depend on whether a neighbour
        asks for gradients.

        Raises:
            MemoryError, RuntimeError: too little memory, as ``faults.ran_out_of_memory`` tells.
        """
        flat = torch.zeros(len(works), self.numbers, device=self.device)
        for place, work in enumerate(works):
            if work is not None:
                flat[place].copy_(work.weights)
        flat.requires_grad_()
        try:
            losses, wanted = self._forward(flat, works)
            found = torch.autograd.grad(wanted, flat)[0] if wanted else None
        finally:
            self._weights = []
        return [self._result(place, work, losses[place], found) for place, work in enumerate(works)]

    def _forward(
        self, flat: Tensor, works: Sequence[Work | None]
    ) -> tuple[list[tuple[float, list[float]]], list[Tensor]]:
        """Each slot's loss and its records' parts; and what is to be derived."""
        sizes = [shape.numel() for shape in self._shapes]
        parts = torch.split(flat.to(self.dtype), sizes, dim=1)
        self._weights = [
            part.view(len(works), *shape) for part, shape in zip(parts, self._shapes, strict=True)
        ]
        slots = self._hidden(works).unbind(0)
        losses, wanted = list[tuple[float, list[float]]](), list[Tensor]()
        for hidden, work in zip(slots, works, strict=True):
            if work is None or not len(work.row.keep):
                losses.append((0.0, [0.0] * len(work.row.counts if work else ())))
                continue
            total, by_token = self._loss(hidden, work)
            records = [part.sum() for part in torch.split(by_token, work.row.counts)]
            losses.append((total.item(), torch.stack(records).tolist()))
            if work.counted_tokens is not None and math.isfinite(losses[-1][0]):
                wanted.append(total / work.counted_tokens)
        return losses, wanted

    def _hidden(self, works: Sequence[Work | None]) -> Tensor:
        """Final hidden states, [S, T, hidden size]."""
        shape = (len(works), self.tokens)
        ids, positions = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
        # What is no record's sees itself alone: a softmax over nothing would be no number.
        owners = -1 - torch.arange(self.tokens).expand(shape).clone()
        for place, work in enumerate(works):
            if work is None:
                continue
            length = sum(work.row.lengths)
            ids[place, :length], positions[place, :length] = work.row.ids[0], work.row.positions[0]
            numbers = torch.arange(len(work.row.lengths))
            owners[place, :length] = numbers.repeat_interleave(torch.tensor(work.row.lengths))
        hidden: Tensor = self.inner.get_decoder()(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            use_cache=False,
            sight=attention.Sight(owners.to(self.device)),
        ).last_hidden_state
        return hidden

    def _loss(self, hidden: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """A slot's loss, of its own rows alone: how many a neighbour has does not matter."""
        rows = hidden[work.row.keep.to(self.device)]
        return linear_cross_entropy(
            rows if work.counted_tokens is not None else rows.detach(),
            self._head.weight,
            work.row.targets.to(self.device),
            self._head.bias,
            self._softcap,
            self._matrix,
        )

    def _result(
        self,
        place: int,
        work: Work | None,
        loss: tuple[float, list[float]],
        found: Tensor | None,
    ) -> Result | None:
        if work is None:
            return None
        wanted = work.counted_tokens is not None and bool(work.row.keep.numel())
        given = found is not None and wanted and math.isfinite(loss[0])
        return Result(*loss, found[place].cpu() if given and found is not None else None)

    def _find(self, weight: nn.Parameter) -> Tensor:
        return self._weights[self._places[id(weight)]]
