"""Frozen matrices laid out for the processor, those without an adapter too; what is none of them
stays as it is and is named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from meetara_build.training.chat import Encoded
from meetara_build.training.kernels import frozen
from meetara_build.training.kernels import fuse as fusing
from meetara_build.training.kernels.fuse import fuse
from meetara_build.training.kernels.lora import attach
from meetara_build.training.kernels.packed import PackedModel
from meetara_build.training.kernels.torch_internals import can_reorder
from meetara_build.training.loop import Settings, prepare_model
from meetara_build.training.targets import output_layer

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
LORA: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": ["q_proj", "o_proj"],
    "rslora": False,
    "dora": False,
}
SETTINGS = Settings(epochs=1, batch_tokens=48, learning_rate=5e-3, seed=7)
needs_layout = pytest.mark.skipif(
    not can_reorder(torch.float32), reason="this processor has no such product"
)


def computed(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of what is trained."""
    model.zero_grad()
    logits = model(input_ids=torch.arange(12)[None]).logits
    logits.square().mean().backward()
    named = {name: weight.grad for name, weight in model.named_parameters()}
    return logits.detach(), {name: grad.clone() for name, grad in named.items() if grad is not None}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def stir(model: nn.Module) -> None:
    """Have adapters change something."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mistral"])
def test_layers_without_an_adapter_compute_what_they_did(kind: str, tiny: Make) -> None:
    model = attach(tiny(kind), LORA, seed=1)
    stir(model)
    logits, gradients = computed(model)
    weights = values(model)
    layers = fuse(model, output_layer(model.get_base_model()))
    assert layers.lora == 4
    for dropped in (False, True):
        if dropped:
            layers.drop_weights(model)
        got, found = computed(model)
        torch.testing.assert_close(got, logits, rtol=1e-4, atol=1e-4)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    layers.undo()
    again = values(model)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
    torch.testing.assert_close(computed(model)[0], logits, rtol=0, atol=0)


@needs_layout
def test_every_frozen_matrix_is_laid_out_but_the_output_layer_s(tiny: Make) -> None:
    model = attach(tiny(tie_word_embeddings=False), LORA, seed=1)
    layers = fuse(model, output_layer(model.get_base_model()))
    assert (layers.lora, layers.rearranged, layers.left) == (4, 14, {})


def test_what_is_no_plain_matrix_is_named(tiny: Make) -> None:
    dora = attach(tiny(), LORA | {"targets": "all-linear", "dora": True}, seed=1)
    assert fuse(dora).left["Linear"] == 14
    moe = attach(tiny("mixtral", num_local_experts=2, num_experts_per_tok=1), LORA, seed=1)
    assert fuse(moe, output_layer(moe.get_base_model())).left == {
        "MixtralExperts": 4,
        "MixtralTopKRouter": 2,
    }
    gpt = attach(
        tiny("gpt2", n_embd=64, n_layer=2, n_head=4), LORA | {"targets": "all-linear"}, seed=1
    )
    assert fuse(gpt, output_layer(gpt.get_base_model())).left == {"Conv1D": 8}


def test_a_weight_that_is_trained_is_left_alone(tiny: Make) -> None:
    model = tiny()
    assert (fuse(model).rearranged, fuse(model).left) == (0, {})


def test_beyond_the_memory_for_copies_torch_computes(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "MEMORY", 0)
    model = attach(tiny(), LORA | {"targets": "all-linear"}, seed=1)
    layers = fuse(model, output_layer(model.get_base_model()))
    assert (layers.lora, layers.rearranged) == (14, 0)
    assert layers.left["Linear"] == 14


@needs_layout
def test_weights_are_held_once_during_a_training_and_whole_after_it(
    tiny: Make, records: Records
) -> None:
    model = attach(tiny(), LORA, seed=1)
    before = values(model)
    with prepare_model(model, records(6), SETTINGS) as packed:
        held = values(model)
        assert held["base_model.model.model.layers.0.mlp.up_proj.weight"].isnan().all()
        assert packed.loss(records(6)).total.isfinite()
    after = values(model)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@needs_layout
def test_a_weight_that_something_else_reads_stays(tiny: Make, records: Records) -> None:
    model = attach(tiny(), LORA, seed=1)
    block = model.get_base_model().get_decoder().layers[0]
    plain = block.forward

    def forward(*given: Any, **named: Any) -> Any:
        return plain(*given, **named) + 0 * block.mlp.up_proj.weight.sum()

    block.forward = forward
    with prepare_model(model, records(6), SETTINGS):
        assert not block.mlp.up_proj.weight.isnan().any()


@needs_layout
def test_a_weight_that_two_layers_share_stays(tiny: Make) -> None:
    model = attach(tiny(), LORA, seed=1)
    first, second = (block.mlp for block in model.get_base_model().get_decoder().layers)
    second.up_proj.weight = first.up_proj.weight
    layers = fuse(model)
    layers.drop_weights(model)
    assert not first.up_proj.weight.isnan().any()
    assert first.gate_proj.weight.isnan().all()


def test_the_report_says_what_was_taken(tiny: Make, records: Records) -> None:
    model = attach(tiny(), LORA, seed=1)
    batch = records(4)
    plain = PackedModel(model, batch).describe()
    assert plain == {"packs": True, "shares": False, "fused_head": True}
    with prepare_model(model, batch, SETTINGS) as packed:
        told = packed.describe()
    assert (told["fused_adapters"], told["left_to_torch"]) == (4, {})
    assert fusing.can_rearrange([torch.zeros(2, 2)]) == (told["rearranged"] == 15)
