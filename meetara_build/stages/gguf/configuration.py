"""A model's configuration as llama.cpp's converter reads it.

The converter was written for configurations as models were published with. transformers 5 renames keys and values even while it loads
them, and leaves out what its own code has built in.
"""

from collections.abc import Mapping
from typing import Any

import conversion

OLD_LAYERS = {"linear_attention": "mamba", "full_attention": "attention"}
"""What kinds of layers were called, by transformers 5's names."""
HYBRIDS = ("granitemoehybrid", "bamba")
"""Model types whose converter looks for the old names of layers."""


def with_old_names(hparams: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the keys and values that transformers 5 renamed or left out, where the converter still reads them.

    What the configuration itself says by an old name stays.
    """
    if isinstance(text := hparams.get("text_config"), dict):
        hparams = {**hparams, "text_config": with_old_names(text)}
    kind = str(hparams.get("model_type"))
    found = {**_renamed(hparams), **_built_in(kind, hparams)}
    changed = (
        {"architectures": [*map(_known_spelling, hparams.get("architectures") or ())]}
        if "architectures" in hparams
        else {}
    )
    if kind in HYBRIDS and hparams.get("layer_types"):
        changed["layer_types"] = [OLD_LAYERS.get(layer, layer) for layer in hparams["layer_types"]]
    return {**{key: value for key, value in found.items() if value is not None}, **hparams, **changed}


def _renamed(hparams: Mapping[str, Any]) -> dict[str, Any]:
    rope = hparams.get("rope_parameters") or {}
    flat = {**rope, **rope.get("full_attention", {})} if isinstance(rope, dict) else {}
    return {
        "n_ctx": hparams.get("n_positions") or hparams.get("max_position_embeddings"),
        "rotary_pct": flat.get("partial_rotary_factor"),
        "partial_rotary_factor": flat.get("partial_rotary_factor"),
        "rotary_emb_base": flat.get("rope_theta"),
        "rope_theta": flat.get("rope_theta"),
    }


def _built_in(kind: str, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' code does where the configuration says nothing of it, and the converter asks for."""
    if kind == "cohere2":
        return {"rotary_pct": 1.0}
    if kind == "deepseek_v3":
        return {"scoring_func": "sigmoid"}
    if kind == "phimoe":
        return {"original_max_position_embeddings": hparams.get("max_position_embeddings")}
    if kind.startswith("gemma4") and not any("head_dim" in own for own in hparams.get("per_layer_config", {}).values()):
        return {"global_head_dim": hparams.get("head_dim")}
    return {}


def _known_spelling(architecture: str) -> str:
    """An architecture's name with the capitals that the converter knows it by (``PhiMoEForCausalLM``)."""
    known = {name.lower(): name for name in conversion.TEXT_MODEL_MAP}
    return architecture if architecture in conversion.TEXT_MODEL_MAP else known.get(architecture.lower(), architecture)
