"""Attention over the segments of a row as one function, which keeps what it was given and no copy.

torch's attention on a CPU takes twice as long in bfloat16 as in float32, and repeats key-value heads
for each group of query heads. Done segment by segment within one function, the copies in float32
and the repeated heads last for one segment, not until the backward pass: a quarter of what a
training in bfloat16 holds for its backward pass otherwise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from meetara_build.training.kernels.torch_internals import attend_flash, attend_flash_backward


class Segment(NamedTuple):
    """Where a segment and the prefix that it goes on from lie in the row, as (first, length), and
    what is added to its scores: [L, M], or None for plain causal attention."""

    own: tuple[int, int]
    above: tuple[int, int] | None
    mask: Tensor | None


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: Sequence[Segment],
        scale: float | None,
    ) -> Tensor:
        out = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
        sums = []
        for segment in segments:
            given = _take(segment, query, key, value)
            made, logs = attend_flash(*given, segment.mask, scale)
            _cut(out, 1, segment.own).copy_(made.transpose(1, 2))
            sums.append(logs)
        ctx.save_for_backward(query, key, value, out, *sums)
        ctx.segments, ctx.scale = segments, scale
        return out

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = outputs
        query, key, value, out, *sums = ctx.saved_tensors
        groups = query.shape[1] // key.shape[1]
        grads = torch.empty_like(query), *(torch.zeros_like(one) for one in (key, value))
        for segment, logs in zip(ctx.segments, sums, strict=True):
            given = _take(segment, query, key, value)
            done, slope = (_cut(one, 1, segment.own).transpose(1, 2).float() for one in (out, grad))
            q, *pair = attend_flash_backward(slope, *given, done, logs, segment.mask, ctx.scale)
            _cut(grads[0], 2, segment.own).copy_(q)
            for whole, part in zip(grads[1:], pair, strict=True):
                shape = (1, whole.shape[1], groups, *part.shape[2:])
                summed = part.view(shape).sum(2).to(whole.dtype)
                before = segment.above[1] if segment.above else 0
                _cut(whole, 2, segment.own).add_(summed[:, :, before:])
                if segment.above:
                    _cut(whole, 2, segment.above).add_(summed[:, :, :before])
        return *grads, None, None


def attend_segments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Segment],
    scale: float | None,
) -> Tensor:
    """Attention of each segment over itself and its prefix, on a CPU.

    Args:
        query: [1, H, T, D]
        key, value: [1, K, T, D]

    Returns:
        [1, T, H, D]
    """
    made: Tensor = _SegmentAttention.apply(query, key, value, segments, scale)  # type: ignore[no-untyped-call]
    return made


def _take(
    segment: Segment, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A segment's queries, and the keys and values that it sees, in float32 and for each head."""
    groups = query.shape[1] // key.shape[1]

    def see(whole: Tensor) -> Tensor:
        seen = _cut(whole, 2, segment.own)
        if segment.above is not None:
            seen = torch.cat([_cut(whole, 2, segment.above), seen], dim=2)
        return seen.float().repeat_interleave(groups, dim=1)

    return _cut(query, 2, segment.own).float(), see(key), see(value)


def _cut(whole: Tensor, dim: int, place: tuple[int, int]) -> Tensor:
    return whole.narrow(dim, *place)
