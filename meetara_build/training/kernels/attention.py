"""Attention for records that lie end to end in one row: causal inside each record, none across
records.

A record may be cut in two: a prefix that several share, which lies in the row once, and its rest.
``L_i`` is the length of segment ``i`` (a whole record, a prefix or a rest) in tokens, ``T`` the sum
of all; ``H`` heads, ``K`` key-value heads of size ``D``.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from meetara_build.training.kernels.segments import Segment, attend_segments
from meetara_build.training.kernels.torch_internals import can_attend

NAME = "meetara_packed"
"""What ``set_attn_implementation`` calls this function. Masks are never made for it, so none costs
[T, T]."""


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    record_lengths: Sequence[int] | None = None,
    record_prefixes: Sequence[int | None] | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within each record only, in the form that transformers' ``AttentionInterface`` asks
    for.

    Args:
        query: [1, H, T, D]
        key, value: [1, K, T, D]
        softcap: bound on attention scores (Gemma-2): ``softcap * tanh(score / softcap)``.
        sliding_window: how many tokens back a token sees, itself included.
        record_lengths: ``[L_0, L_1, …]`` with sum T; None means one record.
        record_prefixes: for each segment the one before it that it goes on from, if there is one.

    Returns:
        [1, T, H, D], None

    Raises:
        ValueError: keys of another length than queries (a cache), or lengths that do not add up to
            T.
    """
    lengths = list(record_lengths) if record_lengths is not None else [query.shape[2]]
    if key.shape[2] != query.shape[2] or sum(lengths) != query.shape[2]:
        raise ValueError("packed attention takes whole records without a cache")
    above = tuple(record_prefixes or [None] * len(lengths))
    if softcap is None and not dropout and can_attend(query, key, value):
        segments = _cut_row(tuple(lengths), above, sliding_window)
        return attend_segments(query, key, value, segments, scaling), None
    # split, not slices: its backward is one concatenation instead of a zero-filled [T] tensor for
    # each record.
    queries, keys, values = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
    outputs = []
    for index, place in enumerate(above):
        key, value = keys[index], values[index]
        if place is not None:
            key, value = torch.cat([keys[place], key], 2), torch.cat([values[place], value], 2)
        outputs.append(
            _attend(queries[index], key, value, dropout, scaling, softcap, sliding_window)
        )
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1), None


@lru_cache(maxsize=4)  # a row's, in all its layers
def _cut_row(
    lengths: tuple[int, ...], above: tuple[int | None, ...], window: int | None
) -> list[Segment]:
    """The row's segments, each with what hides from it what it may not see."""
    device = torch.device("cpu")
    places = [
        (end - length, length) for end, length in zip(accumulate(lengths), lengths, strict=True)
    ]
    segments = []
    for own, index in zip(places, above, strict=True):
        prefix = None if index is None else places[index]
        whole = own[1] + (prefix[1] if prefix else 0)
        limit = window if window is not None and whole > window else None
        plain = prefix is None and limit is None
        mask = None if plain else _hide(_visible(own[1], whole, limit, device), torch.float32)
        segments.append(Segment(own, prefix, mask))
    return segments


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Causal attention of a record's last L tokens over all its M: [1, H, L, D]."""
    length, whole = query.shape[2], key.shape[2]
    window = sliding_window if sliding_window is not None and whole > sliding_window else None
    plain = window is None and length == whole
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None
            if plain
            else _hide(_visible(length, whole, window, query.device), query.dtype),
            dropout_p=dropout,
            is_causal=plain,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (
        query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    )
    scores = torch.tanh(scores / softcap) * softcap
    visible = _visible(length, whole, window, query.device)
    weights = (
        scores.masked_fill(~visible, float("-inf"))
        .softmax(dim=-1, dtype=torch.float32)
        .to(query.dtype)
    )
    return nn.functional.dropout(weights, p=dropout, training=dropout > 0) @ value


def _visible(length: int, whole: int, window: int | None, device: torch.device) -> Tensor:
    """[L, M], true where the row's token, one of the last L of M, may look at the column's."""
    before = whole - length
    visible = torch.ones(length, whole, dtype=torch.bool, device=device).tril(before)
    return visible if window is None else visible.triu(before + 1 - window)


def _hide(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores; with a mask of booleans a CPU takes a third longer."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


AttentionInterface.register(NAME, attend_packed)
