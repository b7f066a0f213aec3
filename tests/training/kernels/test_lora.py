"""Adapters: PEFT's numbers, faster; faults named before training starts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.kernels.fuse import fuse
from meetara_build.training.kernels.lora import attach, has_changed

Make = Callable[..., PreTrainedModel]
PLAIN: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}


def gradients(
    model: torch.nn.Module, ids: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(input_ids=ids).logits
    (logits**2).mean().backward()
    trained = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return logits.detach(), trained


@pytest.mark.parametrize(
    "change", [{}, {"rslora": True}, {"dropout": 0.5}, {"targets": ["q_proj", "down_proj"]}]
)
def test_fused_layers_compute_what_peft_computes(change: dict[str, Any], tiny: Make) -> None:
    model = attach(tiny(), PLAIN | change, seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    model.train()
    ids = torch.arange(10)[None]
    torch.manual_seed(5)
    logits, expected = gradients(model, ids)

    assert fuse(model).lora == sum(
        name.endswith("lora_A.default") for name, _ in model.named_modules()
    )
    torch.manual_seed(5)
    fused_logits, got = gradients(model, ids)

    torch.testing.assert_close(fused_logits, logits, rtol=1e-4, atol=1e-4)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_layer_s_output_may_be_changed_in_place_as_gemma_3n_does(tiny: Make) -> None:
    """``per_layer_projection *= …``: in place on what an adapted layer gives."""
    model = attach(tiny(), PLAIN, seed=1)
    fuse(model)
    layer = next(part for name, part in model.named_modules() if name.endswith("q_proj"))
    for shape in ((1, 5, 64), (5, 64)):
        x = torch.randn(shape)
        wanted = layer(x) * 3.0
        given = layer(x)
        given *= 3.0
        torch.testing.assert_close(given, wanted)
        weights = [weight for weight in layer.parameters() if weight.requires_grad]
        gradients_wanted = torch.autograd.grad(wanted.square().sum(), weights)
        torch.testing.assert_close(
            torch.autograd.grad(given.square().sum(), weights), gradients_wanted
        )


def test_bias_of_the_base_layer_is_added(tiny: Make) -> None:
    model = attach(tiny("qwen2"), PLAIN, seed=1)
    ids = torch.arange(6)[None]
    logits, _ = gradients(model, ids)
    fuse(model)
    torch.testing.assert_close(gradients(model, ids)[0], logits, rtol=1e-4, atol=1e-4)


def test_dora_stays_with_peft(tiny: Make) -> None:
    assert fuse(attach(tiny(), PLAIN | {"dora": True}, seed=1)).lora == 0


def test_the_adapter_can_still_be_switched_off(tiny: Make) -> None:
    base = tiny()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = base(input_ids=ids).logits
        model = attach(base, PLAIN, seed=1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        fuse(model)
        with model.disable_adapter():
            torch.testing.assert_close(model(input_ids=ids).logits, expected)
        assert not torch.allclose(model(input_ids=ids).logits, expected)


def test_the_seed_decides_the_first_weights(tiny: Make) -> None:
    def first(seed: int) -> torch.Tensor:
        model = attach(tiny(), PLAIN, seed)
        return next(weight for name, weight in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_fresh_adapter_has_not_moved(tiny: Make) -> None:
    model = attach(tiny(), PLAIN, seed=1)
    assert not has_changed(model)
    next(weight for name, weight in model.named_parameters() if "lora_B" in name).data[0, 0] = 1e-8
    assert has_changed(model)


def test_targets_that_the_base_lacks_are_named_with_those_it_has(tiny: Make) -> None:
    with pytest.raises(TrainingError, match=r"lora.targets: \['query_key_value'\].*q_proj"):
        attach(tiny(), PLAIN | {"targets": ["query_key_value"]}, seed=1)
