"""Products with a matrix that never changes: laid out once as the CPU likes it, used in every step.

A matrix product rearranges the weight's values for the processor's vector units each time it runs.
For a weight that is frozen this can be done once, with oneDNN, whose products are also the faster
ones here: 104 instead of 85 GFLOP/s in float32 for a batch of 145 tokens, 104 instead of 50 for an
output layer of 49,152 rows. It costs two copies of the weight, one for each direction, so bases
beyond ``MEMORY`` go without.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from meetara_build.training.kernels.torch_internals import can_reorder, multiply_reordered, reorder

MEMORY = 2 * 2**30
"""Most bytes that the copies of all frozen weights may take."""
_TOKENS = 512
"""oneDNN picks the layout for this many rows; it is as good for a hundred."""


class FrozenMatrix:
    """A weight [out, in] that takes no gradient."""

    def __init__(self, weight: Tensor, *, rearrange: bool) -> None:
        self.weight = weight
        self._forward = reorder(weight, _TOKENS) if rearrange else None
        self._backward = reorder(weight.t().contiguous(), _TOKENS) if rearrange else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x W' + bias``, [N, in] -> [N, out]."""
        if self._forward is None:
            return nn.functional.linear(x, self.weight, bias)
        return multiply_reordered(x, self._forward, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """``g W``, [N, out] -> [N, in]."""
        return (
            gradient @ self.weight
            if self._backward is None
            else multiply_reordered(gradient, self._backward, None)
        )


def rearrangeable(weights: Iterable[Tensor]) -> bool:
    """Whether rearranged copies of all these weights exist for this processor and fit into
    ``MEMORY``."""
    several = list(weights)
    return (
        all(weight.device.type == "cpu" and can_reorder(weight.dtype) for weight in several)
        and 2 * sum(weight.numel() * weight.element_size() for weight in several) <= MEMORY
    )
