"""Products with a matrix that never changes: laid out once as the CPU likes it, used in every step.

A matrix product rearranges the weight's values for the processor's vector units each time it runs.
For a weight that is frozen this can be done once, with oneDNN, whose products are also the faster
ones here: 104 instead of 85 GFLOP/s in float32 for a batch of 145 tokens, 104 instead of 50 for an
output layer of 49,152 rows. It costs two copies of the weight, one for each direction, so bases
beyond ``MEMORY`` go without; the weight itself need not be held beside them.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from meetara_build.training.kernels.torch_internals import (
    can_reorder,
    multiply_reordered,
    reorder,
    reshape_in_place,
    restore_order,
)

MEMORY = 2 * 2**30
"""Most bytes that the copies of all frozen weights may take."""
_TOKENS = 512
"""oneDNN picks the layout for this many rows; it is as good for a hundred."""


class FrozenMatrix:
    """A weight [out, in] that takes no gradient.

    Attributes:
        base: the name of the base whose weight it is, if it outlives a training: the next one on
            that base, in a process forked from this one, computes with it too.
    """

    def __init__(self, weight: Tensor, *, rearrange: bool) -> None:
        self.weight = weight
        self._forward = reorder(weight, _TOKENS) if rearrange else None
        self._backward: Tensor | None = None
        self._dropped = False
        self.base = ""

    @property
    def is_held(self) -> bool:
        """Whether it outlives a training."""
        return bool(self.base)

    @property
    def is_rearranged(self) -> bool:
        """Whether the products are oneDNN's."""
        return self._forward is not None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x W' + bias``, [N, in] -> [N, out]."""
        if self._forward is None:
            return nn.functional.linear(x, self.weight, bias)
        return multiply_reordered(x, self._forward, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """``g W``, [N, out] -> [N, in]."""
        if self._forward is None:
            return gradient @ self.weight
        self.lay_out_backward()
        assert self._backward is not None
        return multiply_reordered(gradient, self._backward, None)

    def lay_out_backward(self) -> None:
        """Make the copy that the backward pass needs: layers below the first adapter have none."""
        if self._forward is not None and self._backward is None:
            weight = restore_order(self._forward) if self._dropped else self.weight.detach()
            self._backward = reorder(weight.t().contiguous(), _TOKENS)

    @torch.no_grad()
    def drop_weight(self) -> None:
        """Let go of the weight's own values where the copy gives them back bit for bit.

        What stands in their place is not a number, so that no one else can read it unnoticed.
        """
        if self._forward is None or self._dropped:
            return
        if not torch.equal(restore_order(self._forward), self.weight):
            return
        nothing = self.weight.new_full((1, 1), math.nan)
        self.weight.data = nothing.expand(self.weight.shape)
        self._dropped = True

    def restore_weight(self) -> None:
        """Put the weight's values back, unless it is held."""
        if self.is_held:
            return
        if self._dropped and self._forward is not None:
            self.weight.data = restore_order(self._forward)
        self._dropped = False


_held: dict[int, FrozenMatrix] = {}
"""Those that are held, by their weight's identity."""


def hold_matrix(matrix: FrozenMatrix, base: str) -> None:
    """Keep it for all trainings on a base of this name in processes that are forked from this
    one."""
    matrix.base = base
    _held[id(matrix.weight)] = matrix


def lay_out(weight: Tensor, *, rearrange: bool) -> FrozenMatrix:
    """The weight's matrix: the one that is held, or a new one."""
    return _held.get(id(weight)) or FrozenMatrix(weight, rearrange=rearrange)


def name_base(weights: Iterable[Tensor]) -> str:
    """The name of the base that holds some of these weights, whose values no longer tell it from
    others; "" where none does."""
    return next((_held[id(weight)].base for weight in weights if id(weight) in _held), "")


class _FrozenProduct(torch.autograd.Function):
    """``x W' + bias``, of which nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: FrozenMatrix, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        out = matrix.forward(x.reshape(-1, x.shape[-1]), bias)
        return reshape_in_place(out, [*x.shape[:-1], out.shape[-1]])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = outputs
        made = ctx.matrix.backward(grad.reshape(-1, grad.shape[-1]))
        return reshape_in_place(made, [*grad.shape[:-1], made.shape[-1]]), None, None


def multiply_frozen(x: Tensor, matrix: FrozenMatrix, bias: Tensor | None) -> Tensor:
    """``x W' + bias``, [..., in] -> [..., out], with a gradient for ``x`` alone."""
    product: Tensor = _FrozenProduct.apply(x, matrix, bias)  # type: ignore[no-untyped-call]
    return product


def can_rearrange(weights: Iterable[Tensor]) -> bool:
    """Whether rearranged copies of all these weights exist for this processor and fit into
    ``MEMORY``."""
    several = list(weights)
    return (
        all(weight.device.type == "cpu" and can_reorder(weight.dtype) for weight in several)
        and 2 * sum(weight.numel() * weight.element_size() for weight in several) <= MEMORY
    )
