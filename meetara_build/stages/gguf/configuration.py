"""A model's configuration as llama.cpp's converter reads it.

The converter was written for configurations as models were published with. transformers 5 renames
keys and values even while it loads them, and leaves out what its own code has built in.
"""

from collections.abc import Mapping
from typing import Any

import conversion

OLD_LAYERS = {"linear_attention": "mamba", "full_attention": "attention"}
"""What kinds of layers were called, by transformers 5's names."""
SIGMOID = (
    *(
        "afmoe",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "exaone_moe",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "kimi_linear",
    ),
    *("mimo_v2_flash", "minimax_m2", "nemotron_h", "solar_open"),
)
"""Model types whose router is a sigmoid in transformers' code, where the converter takes it for a
softmax unless a key says so."""
BUILT_IN: dict[str, dict[str, Any]] = {
    "cohere2": {"rotary_pct": 1.0},
    "afmoe": {"route_norm": True},
}
HYBRIDS = ("granitemoehybrid", "bamba")
"""Model types whose converter looks for the old names of layers."""


def with_old_names(hparams: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the keys and values that transformers 5 renamed or left out, where the
    converter still reads them.

    What the configuration itself says by an old name stays.
    """
    if isinstance(text := hparams.get("text_config"), dict):
        hparams = {**hparams, "text_config": with_old_names(text)}
    kind = str(hparams.get("model_type"))
    found = {**_rename(hparams), **_find_built_in(kind, hparams)}
    changed = (
        {"architectures": [*map(_find_spelling, hparams.get("architectures") or ())]}
        if "architectures" in hparams
        else {}
    )
    if kind in HYBRIDS and hparams.get("layer_types"):
        changed["layer_types"] = [OLD_LAYERS.get(layer, layer) for layer in hparams["layer_types"]]
    return {
        **{key: value for key, value in found.items() if value is not None},
        **hparams,
        **changed,
    }


def _rename(hparams: Mapping[str, Any]) -> dict[str, Any]:
    flat = _rope(hparams)
    return {
        "n_ctx": hparams.get("n_positions") or hparams.get("max_position_embeddings"),
        "rotary_pct": flat.get("partial_rotary_factor"),
        "partial_rotary_factor": flat.get("partial_rotary_factor"),
        "rotary_emb_base": flat.get("rope_theta"),
        "rope_theta": flat.get("rope_theta"),
    }


def _rope(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are rotated in full attention."""
    rope = hparams.get("rope_parameters") or {}
    return {**rope, **rope.get("full_attention", {})} if isinstance(rope, dict) else {}


def _find_built_in(kind: str, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' code does where the configuration says nothing of it, and the converter
    asks for."""
    found = dict(BUILT_IN.get(kind, {}))
    if kind in SIGMOID:
        found["scoring_func"] = "sigmoid"
    if kind == "phimoe":
        found["original_max_position_embeddings"] = hparams.get("max_position_embeddings")
    if kind == "minimax_m2":
        found["rotary_dim"] = int(
            hparams["head_dim"] * _rope(hparams).get("partial_rotary_factor", 1.0)
        )
    if kind.startswith("gemma4") and not any(
        "head_dim" in own for own in hparams.get("per_layer_config", {}).values()
    ):
        found["global_head_dim"] = hparams.get("head_dim")
    return found


def _find_spelling(architecture: str) -> str:
    """An architecture's name with the capitals that the converter knows it by
    (``PhiMoEForCausalLM``)."""
    known = {name.lower(): name for name in conversion.TEXT_MODEL_MAP}
    return (
        architecture
        if architecture in conversion.TEXT_MODEL_MAP
        else known.get(architecture.lower(), architecture)
    )
