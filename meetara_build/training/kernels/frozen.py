"""Products with a matrix that never changes: laid out once as the CPU likes it, used in every step.

A matrix product rearranges the weight's values for the processor's vector units each time it runs. For a weight that is
frozen this can be done once, with oneDNN, whose products are also the faster ones here: 104 instead of 85 GFLOP/s in
float32 for a batch of 145 tokens, 104 instead of 50 for an output layer of 49,152 rows. It costs two copies of the
weight, one for each direction, so bases beyond ``MEMORY`` go without.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MEMORY = 2 * 2**30
"""Most bytes that the copies of all frozen weights may take."""
_TOKENS = 512
"""oneDNN picks the layout for this many rows; it is as good for a hundred."""


class FrozenMatrix:
    """A weight [out, in] that takes no gradient."""

    def __init__(self, weight: Tensor, *, rearrange: bool) -> None:
        self.weight = weight
        self._forward = _rearranged(weight) if rearrange else None
        self._backward = _rearranged(weight.t().contiguous()) if rearrange else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x W' + bias``, [N, in] -> [N, out]."""
        if self._forward is None:
            return nn.functional.linear(x, self.weight, bias)
        return _product(x, self._forward, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """``g W``, [N, out] -> [N, in]."""
        return (
            gradient @ self.weight
            if self._backward is None
            else _product(gradient, self._backward, None)
        )


def rearrangeable(weights: Iterable[Tensor]) -> bool:
    """Whether rearranged copies of all these weights exist for this processor and fit into ``MEMORY``."""
    several = list(weights)
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and all(weight.device.type == "cpu" and _supported(weight.dtype) for weight in several)
        and 2 * sum(weight.numel() * weight.element_size() for weight in several) <= MEMORY
    )


def _supported(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _rearranged(weight: Tensor) -> Tensor:
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TOKENS)
    return copy


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
