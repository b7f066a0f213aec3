"""Configurations as transformers 5 saves them are read by llama.cpp's converter as the model is."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_builds import fresh, recipe
from small_models import make_model, train_tokenizer
from transformers import AutoConfig

from meetara_build.stages import gguf
from meetara_build.stages.gguf.configuration import with_old_names

FAMILIES: dict[str, dict[str, Any]] = {
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 512,
        "mamba_n_heads": 8,
        "mamba_d_head": 64,
        "mamba_d_state": 32,
        "mamba_n_groups": 1,
    },
    "deepseek_v3": {
        "q_lora_rank": 64,
        "kv_lora_rank": 64,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
    },
    "cohere2": {},
    "ministral3": {},
    "qwen3_next": {
        "head_dim": 64,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "layer_types": ["linear_attention", "full_attention"],
    },
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_base_saved_by_transformers_5_has_the_logits_of_its_gguf_file(
    kind: str, tmp_path: Path
) -> None:
    """Layers called by new names, a router's sigmoid and a share of rotated columns that no key
    tells, layers that are not saved."""
    train_tokenizer(tmp_path)
    make_model(tmp_path, kind, **FAMILIES[kind])
    output = fresh(tmp_path / "out")
    gguf.run(recipe(), {"base": tmp_path}, output)
    assert json.loads((output / "proof.json").read_text())["logits"]["worst"] < 0.005


def saved(kind: str, **changes: Any) -> dict[str, Any]:
    return dict(AutoConfig.for_model(kind, **changes).to_dict())


def test_layers_have_their_old_names_where_the_converter_knows_no_others() -> None:
    assert with_old_names(
        saved("granitemoehybrid", num_hidden_layers=2, layer_types=["mamba", "attention"])
    )["layer_types"] == [
        "mamba",
        "attention",
    ]
    kinds = ["conv", "full_attention"]
    assert (
        with_old_names(saved("lfm2", num_hidden_layers=2, layer_types=kinds))["layer_types"]
        == kinds
    )


def test_what_a_configuration_says_itself_stays() -> None:
    assert (
        with_old_names({"model_type": "deepseek_v3", "scoring_func": "softmax"})["scoring_func"]
        == "softmax"
    )
    assert with_old_names({"model_type": "deepseek_v3"})["scoring_func"] == "sigmoid"
    assert "scoring_func" not in with_old_names({"model_type": "deepseek_v2"})


def test_the_text_part_of_a_multimodal_configuration_is_read_so_too() -> None:
    text = {"model_type": "cohere2", "rope_parameters": {"rope_theta": 50000.0}}
    found = with_old_names({"model_type": "aya", "text_config": text})["text_config"]
    assert (found["rotary_pct"], found["rope_theta"]) == (1.0, 50000.0)


def test_an_architecture_is_known_whatever_its_capitals() -> None:
    found = with_old_names(
        {
            "model_type": "phimoe",
            "architectures": ["PhimoeForCausalLM"],
            "max_position_embeddings": 512,
        }
    )
    assert found["architectures"] == ["PhiMoEForCausalLM"]
    assert found["original_max_position_embeddings"] == 512
    assert with_old_names({"architectures": ["NobodysModel"]})["architectures"] == ["NobodysModel"]
    assert "architectures" not in with_old_names({"model_type": "llama"})


@pytest.mark.parametrize(
    ("layers", "wide"),
    [({}, 64), ({"1": {"head_dim": 512}}, None)],
    ids=["alike in all layers", "of its own in some"],
)
def test_gemma_4_s_width_of_a_head_is_told_where_all_layers_have_the_same(
    layers: dict[str, Any], wide: int | None
) -> None:
    config = {"model_type": "gemma4_text", "head_dim": 64, "per_layer_config": layers}
    assert with_old_names(config).get("global_head_dim") == wide
