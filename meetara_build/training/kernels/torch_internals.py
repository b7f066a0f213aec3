"""What of PyTorch's private operators is used, tried with torch 2.13: oneDNN's own layout of a
weight has no public name, nor has the backward pass of its attention on a CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor


def can_reorder(dtype: torch.dtype) -> bool:
    """Whether oneDNN lays out weights of this type on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    known = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return known and dtype in (torch.float32, torch.bfloat16)


def reorder(weight: Tensor, rows: int) -> Tensor:
    """A copy of a weight [out, in] in the layout that oneDNN picks for inputs of so many rows."""
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return copy


def restore_order(reordered: Tensor) -> Tensor:
    """The weight [out, in] that was reordered, bit for bit."""
    return reordered.to_dense()


def multiply_reordered(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W' + bias`` with a reordered weight, [N, in] -> [N, out]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def reshape_in_place(made: Tensor, shape: Sequence[int]) -> Tensor:
    """What an autograd function has made, in another shape and no view of it.

    Some models change a layer's output in place (Gemma 3n), which autograd forbids for a view.
    """
    whole: Tensor = torch.ops.aten._unsafe_view(made, shape)
    return whole


def can_attend(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether ``attend_flash`` takes such tensors: on a CPU, with heads of one size."""
    known = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward")
    return known and query.device.type == "cpu" and query.shape[3] == key.shape[3] == value.shape[3]


def attend_flash(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Attention on a CPU, [1, H, L, D] over [1, H, M, D], and what its backward pass needs; causal
    without a mask, which is added to scores."""
    made, logs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, mask is None, attn_mask=mask, scale=scale
    )
    return made, logs


def attend_flash_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    made: Tensor,
    logs: Tensor,
    mask: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value."""
    grads: tuple[Tensor, Tensor, Tensor] = (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, made, logs, 0.0, mask is None, attn_mask=mask, scale=scale
        )
    )
    return grads
