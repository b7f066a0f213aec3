"""Attention over segments gives torch's numbers and gradients, and keeps no copies."""

import pytest
import torch
from torch import Tensor, nn

from meetara_build.training.kernels import attention

LENGTHS, ABOVE = [6, 5, 9, 4], [None, 0, 0, None]
RECORDS = [(range(6), range(6, 11)), (range(6), range(11, 20)), ((), range(20, 24))]
"""Where each record's prefix and rest lie."""


def given(heads: int, pairs: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(1, count, 24, 8).to(dtype).requires_grad_() for count in (heads, pairs, pairs)
    ]


def reference(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Each record whole, by torch's attention with an explicit mask."""
    out = torch.zeros(1, 24, query.shape[1], 8)
    for prefix, rest in RECORDS:
        at = [*prefix, *rest]
        seen = torch.ones(len(at), len(at), dtype=torch.bool).tril()
        if window:
            seen = seen.triu(1 - window)
        parts = (one.float()[:, :, at] for one in (query, key, value))
        made = nn.functional.scaled_dot_product_attention(*parts, attn_mask=seen, enable_gqa=True)
        out = out.index_copy(1, torch.tensor(at), made.transpose(1, 2))
    return out


@pytest.mark.parametrize("window", [None, 4, 100])
@pytest.mark.parametrize("pairs", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_torchs(
    dtype: torch.dtype, pairs: int, window: int | None
) -> None:
    close = (
        {"rtol": 3e-2, "atol": 3e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    )
    ours, plain = given(4, pairs, dtype), given(4, pairs, dtype)
    made, _ = attention.attend_packed(
        nn.Identity(),
        *ours,
        sliding_window=window,
        record_lengths=LENGTHS,
        record_prefixes=ABOVE,
    )
    expected = reference(*plain, window)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), expected, **close)
    # Prefixes' own rows count once here, and once for each record in the reference's.
    weights = torch.randn(expected.shape)
    (made.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, plain, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.float(), other.grad.float(), **close)


def test_nothing_is_kept_but_what_was_given_and_made() -> None:
    kept: list[Tensor] = []
    query, key, value = given(4, 2, torch.bfloat16)

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made, _ = attention.attend_packed(
            nn.Identity(), query, key, value, record_lengths=LENGTHS, record_prefixes=ABOVE
        )
    logs = sum(tensor.numel() for tensor in kept[4:])
    assert {one.data_ptr() for one in kept[:4]} == {
        one.data_ptr() for one in (query, key, value, made)
    }
    assert logs == 4 * 24


def test_heads_of_another_size_for_values_are_left_to_torch() -> None:
    query, key, value = given(4, 4, torch.float32)
    wide = torch.cat([value, value], dim=3)
    made, _ = attention.attend_packed(nn.Identity(), query, key, wide, record_lengths=[24])
    expected = nn.functional.scaled_dot_product_attention(query, key, wide, is_causal=True)
    torch.testing.assert_close(made, expected.transpose(1, 2))
