"""The chunked loss equals cross-entropy over whole logits, and so do its gradients."""

import pytest
import torch

from meetara_build.training.kernels import loss as module
from meetara_build.training.kernels.loss import linear_cross_entropy


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_and_gradients_equal_plain_cross_entropy(
    softcap: float | None, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "CHUNK_BYTES", 4 * 50 * 3
    )  # three rows at a time, the last chunk is smaller
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    bias = torch.randn(50, requires_grad=True) if with_bias else None
    targets = torch.randint(50, (10,))
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]

    logits = torch.nn.functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    expected = torch.autograd.grad(plain * 0.3, leaves)
    fused, by_token = linear_cross_entropy(hidden, weight, targets, bias, softcap)
    got = torch.autograd.grad(fused * 0.3, leaves)

    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(
        by_token, torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    )
    assert not by_token.requires_grad
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_huge_logits_stay_finite() -> None:
    hidden = torch.full((2, 4), 1e4, requires_grad=True)
    weight = torch.eye(4)[:3] * 1e3
    loss, _ = linear_cross_entropy(hidden, weight, torch.tensor([0, 2]))
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(5, 4)
    linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2]))[0].backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_bfloat16_weights_give_a_float32_loss_close_to_the_exact_one() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(6, 32), torch.randn(40, 32), torch.randint(40, (6,))
    exact, _ = linear_cross_entropy(hidden, weight, targets)
    rounded, _ = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), targets)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=0.1)
