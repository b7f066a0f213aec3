"""What "all-linear" stands for in each family, and which targets are refused before anything is
trained."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import SHAPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.kernels.lora import attach, has_changed
from meetara_build.training.targets import layer_names

Make = Callable[..., PreTrainedModel]
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
EXPERT = ["down_proj", "gate_proj", "up_proj"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": ({}, [*ATTENTION, *EXPERT]),
    "gpt2": ({"n_layer": 1, "n_head": 4, "n_embd": 64}, ["c_attn", "c_fc", "c_proj"]),
    # A router that is a linear layer of its own kind, one that weighs a shared expert (which
    # stays), experts that are one tensor.
    "phimoe": ({"num_local_experts": 4}, ATTENTION),
    "qwen2_moe": ({**EXPERTS, "shared_expert_intermediate_size": 32}, [*ATTENTION, *EXPERT]),
    "ernie4_5_moe": (
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 1,
        },
        ATTENTION,
    ),
    # Mamba's out_proj, which PEFT refuses.
    "mamba2": ({"num_heads": 2, "head_dim": 64, "n_groups": 1, "state_size": 16}, ["in_proj"]),
}
SETTINGS: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.0, "rslora": False, "dora": False}


def make(kind: str) -> PreTrainedModel:
    small = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(kind, **{**SHAPE, **small, **FAMILIES[kind][0]})
    return AutoModelForCausalLM.from_config(config)


def refused(model: PreTrainedModel, *targets: str) -> str:
    with pytest.raises(TrainingError) as fault:
        attach(model, {**SETTINGS, "targets": list(targets)}, seed=1)
    said = str(fault.value)
    assert said.startswith("lora.targets: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("kind", FAMILIES)
def test_all_linear_is_every_layer_that_an_adapter_can_change_and_no_other(kind: str) -> None:
    model = make(kind)
    assert layer_names(model) == sorted(FAMILIES[kind][1])
    adapted = attach(model, {**SETTINGS, "targets": "all-linear"}, seed=1)
    layers = {
        name.partition(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A" in name
    }
    assert {name.rpartition(".")[2] for name in layers} == set(FAMILIES[kind][1])
    adapted(input_ids=torch.arange(5)[None]).logits.sum().backward()
    changed = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert changed and all(weight.grad is not None for weight in changed)


def test_a_name_that_is_no_layer_is_refused_although_another_is_one(tiny: Make) -> None:
    said = refused(tiny(), "q_proj", "k_porj")
    assert said.startswith(
        "lora.targets: ['k_porj'] matches no layer of LlamaForCausalLM: use \"all-linear\" or some of "
    )
    assert said.endswith("down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj")


def test_why_peft_refuses_a_layer_is_passed_on_with_the_layers_that_it_takes() -> None:
    said = refused(make("mamba2"), "in_proj", "out_proj")
    assert "(PEFT says: " in said
    assert "Module 'out_proj' is incompatible with Mamba-based models" in said
    assert said.endswith('use "all-linear" or some of in_proj')


@pytest.mark.parametrize("target", ["input_layernorm", "self_attn", "rotary_emb"])
def test_a_part_that_is_no_matrix_is_refused_with_layers_of_the_model_itself(
    target: str, tiny: Make
) -> None:
    said = refused(tiny(), target)
    assert f"lora.targets: ['{target}'] cannot be adapted in LlamaForCausalLM (PEFT says: " in said
    assert said.endswith("some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj")


def test_a_router_is_refused_by_name_before_the_first_step_fails() -> None:
    said = refused(make("phimoe"), "q_proj", "router")
    assert (
        "router is a router (PhimoeTopKRouter), which an adapter cannot change: use some of k_proj"
        in said
    )


@pytest.mark.parametrize(
    ("target", "other"), [("lm_head", "embedding"), ("embed_tokens", "output layer")]
)
def test_a_layer_whose_weights_the_base_uses_twice_is_refused_before_training(
    target: str, other: str, tiny: Make
) -> None:
    said = refused(tiny(tie_word_embeddings=True), "q_proj", target)
    assert (
        f"{target} has the same weights as the base's {other} (tie_word_embeddings in its config.json)"
        in said
    )
    assert said.endswith(f"leave {target} out")


def test_an_embedding_of_its_own_can_be_adapted_alone_and_is_seen_to_move(tiny: Make) -> None:
    adapted = attach(
        tiny(tie_word_embeddings=False), {**SETTINGS, "targets": ["embed_tokens"]}, seed=1
    )
    assert not has_changed(adapted)
    adapted(input_ids=torch.arange(5)[None]).logits.square().sum().backward()
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    assert has_changed(adapted)
