"""Attention of a pass's slots: each record sees its own tokens alone, as explicit masks say."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "meetara_slots"
"""What ``set_attn_implementation`` calls this function. Masks are never made for it, but by who asks
for a pass."""


class Sight:
    """Which tokens of a slot each of its tokens may look at."""

    def __init__(self, owners: Tensor) -> None:
        """``owners``: [S, T], the number of the record that a token belongs to; records lie end to
        end, and what is no record's has a number of its own."""
        self._same = owners[:, None, :, None] == owners[:, None, None, :]
        self._masks: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What is added to scores, [S, 1, T, T]: causal within a record, at most ``window`` tokens
        back, itself included."""
        if (window, dtype) not in self._masks:
            visible = self._same.tril()
            if window is not None:
                visible = visible.triu(1 - window)
            hidden = torch.zeros_like(visible, dtype=dtype)
            self._masks[window, dtype] = hidden.masked_fill_(~visible, float("-inf"))
        return self._masks[window, dtype]


def attend_slots(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    sight: Sight | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within the records of each slot, in the form that transformers'
    ``AttentionInterface`` asks for.

    Args:
        query: [S, H, T, D]
        key, value: [S, K, T, D]
        softcap: bound on attention scores (Gemma-2): ``softcap * tanh(score / softcap)``.
        sliding_window: how many tokens back a token sees, itself included.

    Returns:
        [S, T, H, D], None

    Raises:
        ValueError: there is no ``sight``, or dropout is asked for.
    """
    if sight is None or dropout:
        raise ValueError("slots take records that lie end to end, and no dropout")
    mask = sight.mask(sliding_window, query.dtype)
    if softcap is None:
        made = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return made.transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = scaling if scaling is not None else query.shape[3] ** -0.5
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / softcap) * softcap + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), None


AttentionInterface.register(NAME, attend_slots)
