"""Rearranged weights give torch's products, and are left out where they would not."""

import pytest
import torch

from meetara_build.training.kernels import frozen
from meetara_build.training.kernels.frozen import FrozenMatrix, can_rearrange


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rearrange", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, 600])
def test_products_equal_torchs(dtype: torch.dtype, rearrange: bool, tokens: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 40, dtype=dtype), torch.randn(24, dtype=dtype)
    if rearrange and not can_rearrange([weight]):
        pytest.skip("this processor has no such product")
    x, gradient = torch.randn(tokens, 40, dtype=dtype), torch.randn(tokens, 24, dtype=dtype)
    matrix = FrozenMatrix(weight, rearrange=rearrange)
    close = {"rtol": 2e-2, "atol": 0.2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(matrix.forward(x), x @ weight.t(), **close)
    torch.testing.assert_close(matrix.forward(x, bias), x @ weight.t() + bias, **close)
    torch.testing.assert_close(matrix.backward(gradient), gradient @ weight, **close)


def test_other_types_are_left_as_they_are() -> None:
    assert not can_rearrange([torch.zeros(4, 4, dtype=torch.float64)])
    assert not can_rearrange([torch.zeros(4, 4), torch.zeros(4, 4, device="meta")])


def test_two_copies_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.zeros(8, 16), torch.zeros(8, 16)]
    copies = 2 * 2 * 8 * 16 * 4
    monkeypatch.setattr(frozen, "MEMORY", copies)
    assert can_rearrange(weights)
    monkeypatch.setattr(frozen, "MEMORY", copies - 1)
    assert not can_rearrange(weights)
