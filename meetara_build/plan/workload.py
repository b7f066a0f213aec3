"""How much a step has to do, as one number that its time grows with: estimates scale by it from one run to another."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from meetara_build.graph import Step
from meetara_build.llama_cpp.quants import FILE_BITS
from meetara_build.store.manifest import Manifest

BYTES_A_TOKEN = 5.0
"""Of a record's JSON line; only ratios matter, except for the model that stands in where nothing was measured."""
UNKNOWN_BYTES = 30_000
"""A data set that was never prepared and whose sources cannot be seen (a hub's) is taken for one of the shipped size."""

UNKNOWN_SIDES = {"train": 24_000, "test": 6_000}
"""The same for its sides: a test side is a quarter of a training side."""
TAKEN_BACK = 2_000.0
"""What a weight taken back from a GGUF file costs, in weights of a pretraining step: 28 CPU-seconds for 135 million."""

Manifests = Callable[[str], Manifest | None]
"""An input artifact's manifest by the input's name."""


def workload(step: Step, manifest: Manifests) -> float:
    """Multiply-adds for what runs a model, bytes for what reads data; comparable between steps of one stage only."""
    recipe, stage = step.recipe, step.stage
    if stage == "base" and "gguf" in recipe:
        return step.parameters * TAKEN_BACK
    if stage == "base":
        corpus = manifest("corpus")
        text = corpus.files["corpus.jsonl"]["size"] if corpus else UNKNOWN_BYTES
        epochs = recipe.get("pretraining", {}).get("epochs", 0)
        return float(step.parameters * (1 + epochs * text / BYTES_A_TOKEN))
    if stage in ("dataset", "corpus"):
        return float(sum(_size(path) for path in step.sources.values()) or UNKNOWN_BYTES)
    if stage == "adapter":
        tokens = (
            float(recipe["training"]["epochs"])
            * _side(manifest("dataset"), "train")
            / BYTES_A_TOKEN
        )
        steps = recipe["training"]["max_steps"]
        most = float(steps * recipe["training"]["batch_tokens"]) if steps else tokens
        return step.parameters * min(tokens, most)
    if stage == "merge":
        return float(step.parameters)
    if stage == "gguf":
        return float(step.parameters * (1 + len(recipe["quants"])))
    if stage == "evaluate":
        return (
            step.parameters
            * (2 + len(recipe["quants"]))
            * _side(manifest("dataset"), "test")
            / BYTES_A_TOKEN
        )
    return float(len(step.inputs))


def output_size(step: Step, manifest: Manifests) -> float:
    """Bytes of a step's files that was never built, from the model's size and the types' bits for each weight."""
    if step.stage == "gguf":
        kinds = dict.fromkeys(["F16", *step.recipe["quants"]])
        return sum(step.parameters * FILE_BITS.get(kind, 8.0) / 8 for kind in kinds)
    if step.stage in ("base", "merge"):
        return step.parameters * 4.0
    if step.stage == "adapter":
        return step.parameters * 4.0 * min(1.0, _share(step.recipe))
    if step.stage in ("dataset", "corpus"):
        return workload(step, manifest)
    return 2000.0


def _share(recipe: Mapping[str, Any]) -> float:
    """LoRA's weights as a share of the base's, roughly: two thin matrices beside each square one of a few hundred rows."""
    return float(recipe["lora"]["rank"]) / 230


def _side(dataset: Manifest | None, side: str) -> float:
    return float(dataset.files[f"{side}.jsonl"]["size"]) if dataset else UNKNOWN_SIDES[side]


def _size(path: str) -> int:
    try:
        if os.path.isdir(path):
            return sum(
                os.stat(os.path.join(at, name)).st_size
                for at, _, names in os.walk(path)
                for name in names
            )
        return os.stat(path).st_size
    except OSError:
        return 0
