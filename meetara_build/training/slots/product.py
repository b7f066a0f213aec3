"""LoRA products of a pass: the frozen matrix over the rows of all slots at once, each slot's own
thin matrices beside it."""

from collections.abc import Callable
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from meetara_build.training.kernels.frozen import FrozenMatrix
from meetara_build.training.kernels.lora import ADAPTER
from meetara_build.training.kernels.torch_internals import reshape_in_place

Find = Callable[[nn.Parameter], Tensor]
"""By a weight of the model's own adapter, that weight of all slots: [S, …], in the base's type."""


class _SlotProduct(torch.autograd.Function):
    """``x W' + b + scale * (x A') B'`` with an ``A`` and a ``B`` for each slot."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: FrozenMatrix,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        low = torch.bmm(a, x.transpose(1, 2))  # [S, rank, T]
        flat = matrix.forward(x.reshape(-1, x.shape[-1]), bias)
        out = reshape_in_place(flat, [*x.shape[:-1], flat.shape[-1]])
        out.baddbmm_(low.transpose(1, 2), b.transpose(1, 2), alpha=scale)
        ctx.save_for_backward(x, low, a, b)
        ctx.matrix, ctx.scale = matrix, scale
        return out

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, low, a, b = ctx.saved_tensors
        (grad,) = outputs
        grad_low = torch.bmm(b.transpose(1, 2), grad.transpose(1, 2)).mul_(ctx.scale)
        grad_a = torch.bmm(grad_low, x)
        grad_b = torch.bmm(low, grad).transpose(1, 2).mul(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            made = ctx.matrix.backward(grad.reshape(-1, grad.shape[-1]))
            grad_x = reshape_in_place(made, [*grad.shape[:-1], made.shape[-1]])
            grad_x.baddbmm_(grad_low.transpose(1, 2), a)
        return grad_x, None, None, grad_a, grad_b, None


def share_layer(layer: nn.Module, matrix: FrozenMatrix, find: Find) -> None:
    """Have a plain LoRA layer compute [S, T, in] -> [S, T, out], each slot with weights of its own;
    its base's weight is ``matrix``."""
    assert isinstance(layer, LoraLinear)
    bias = cast(nn.Linear, layer.get_base_layer()).bias
    down = cast(nn.Parameter, layer.lora_A[ADAPTER].weight)
    up = cast(nn.Parameter, layer.lora_B[ADAPTER].weight)
    scale = layer.scaling[ADAPTER]

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return _SlotProduct.apply(x, matrix, bias, find(down), find(up), scale)  # type: ignore[no-any-return,no-untyped-call]

    layer.forward = forward  # type: ignore[method-assign]
