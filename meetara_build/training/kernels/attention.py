"""Attention for records that lie end to end in one row: causal inside each record, none across
records.

``L_i`` is the length of record ``i`` in tokens, ``T`` the sum of all; ``H`` heads, ``K`` key-value
heads of size ``D``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

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

    Returns:
        [1, T, H, D], None

    Raises:
        ValueError: keys of another length than queries (a cache), or lengths that do not add up to
            T.
    """
    lengths = list(record_lengths) if record_lengths is not None else [query.shape[2]]
    if key.shape[2] != query.shape[2] or sum(lengths) != query.shape[2]:
        raise ValueError("packed attention takes whole records without a cache")
    if query.device.type == "cpu" and query.dtype != torch.float32:
        # torch's attention on a CPU takes twice as long in bfloat16 as in float32.
        query, key, value, kept = query.float(), key.float(), value.float(), query.dtype
    else:
        kept = query.dtype
    if len(lengths) == 1:
        return _attend(query, key, value, dropout, scaling, softcap, sliding_window).transpose(
            1, 2
        ).to(kept), None
    # split, not slices: its backward is one concatenation instead of a zero-filled [T] tensor for
    # each record.
    parts = [torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)]
    outputs = [
        _attend(q, k, v, dropout, scaling, softcap, sliding_window)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1).to(kept), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    softcap: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Causal attention over one record: [1, H, L, D]."""
    length = query.shape[2]
    windowed = sliding_window is not None and length > sliding_window
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=_visible(length, sliding_window, query.device) if windowed else None,
            dropout_p=dropout,
            is_causal=not windowed,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (
        query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    )
    scores = torch.tanh(scores / softcap) * softcap
    visible = _visible(length, sliding_window if windowed else None, query.device)
    weights = (
        scores.masked_fill(~visible, float("-inf"))
        .softmax(dim=-1, dtype=torch.float32)
        .to(query.dtype)
    )
    return nn.functional.dropout(weights, p=dropout, training=dropout > 0) @ value


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """[L, L], true where the row's token may look at the column's."""
    visible = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return visible if window is None else visible.triu(1 - window)


AttentionInterface.register(NAME, attend_packed)
