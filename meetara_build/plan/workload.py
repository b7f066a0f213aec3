"""How much a step has to do, as one number that its time grows with: estimates scale by it from one
run to another."""

import os
from collections.abc import Callable

from meetara_build.graph import SAMPLE, Step
from meetara_build.graph.stages import MERGED, list_types
from meetara_build.llama_cpp.quants import FILE_BITS
from meetara_build.store.manifest import Manifest

BYTES_A_TOKEN = 5.0
"""Of a record's JSON line; only ratios matter, except for the model that stands in where nothing
was measured."""
BYTES_A_RECORD = 700.0
"""Of its JSON line, among shipped ones."""
WRITTEN, CHOICES = 2.0, 4
"""What a token of an answer costs, in tokens that are read; and how many answers are weighed for
each prompt."""
UNKNOWN_BYTES = 30_000
"""A data set that was never prepared and whose sources cannot be seen (a hub's) is taken for one of
the shipped size."""

UNKNOWN_SIDES = {"train": 24_000, "test": 6_000}
"""The same for its sides: a test side is a quarter of a training side."""
TAKEN_BACK = 2_000.0
"""What a weight taken back from a GGUF file costs, in weights of a pretraining step: 28 CPU-seconds
for 135 million."""

Manifests = Callable[[str], Manifest | None]
"""An input artifact's manifest by the input's name."""


def workload(step: Step, manifest: Manifests) -> float:
    """Multiply-adds for what runs a model, bytes for what reads data; comparable between steps of
    one stage only."""
    return WORK[step.row.work](step, manifest)


def output_size(step: Step, manifest: Manifests) -> float:
    """Bytes of a step's files that was never built, from the model's size and the types' bits for
    each weight."""
    return SIZES[step.row.size](step, manifest)


def _pretraining(step: Step, manifest: Manifests) -> float:
    if step.recipe["gguf"]:
        return step.parameters * TAKEN_BACK
    corpus = manifest("corpus")
    text = corpus.files["corpus.jsonl"]["size"] if corpus else UNKNOWN_BYTES
    epochs = (step.recipe["pretraining"] or {}).get("epochs", 0)
    return float(step.parameters * (1 + epochs * text / BYTES_A_TOKEN))


def _sources(step: Step, _: Manifests) -> float:
    own = (path for name, path in step.sources.items() if name != SAMPLE)
    return float(sum(map(_size, own)) or UNKNOWN_BYTES)


def _training(step: Step, manifest: Manifests) -> float:
    recipe = step.recipe["training"]
    tokens = float(recipe["epochs"]) * _side(manifest("dataset"), "train") / BYTES_A_TOKEN
    steps = recipe["max_steps"]
    most = float(steps * recipe["batch_tokens"]) if steps else tokens
    return step.parameters * min(tokens, most)


def _weigh_held_out(step: Step, manifest: Manifests) -> float:
    files = step.parameters * (1 + len(step.recipe.get("quants", ())))
    text, asked = _side(manifest("dataset"), "test"), step.recipe["answers"]
    prompts = asked["prompts"] if asked["prompts"] is not None else text / BYTES_A_RECORD
    answers = prompts * (WRITTEN * asked["tokens"] + CHOICES * asked["choice_tokens"])
    return float(files * (text / BYTES_A_TOKEN + answers))


def _start(step: Step, _: Manifests) -> float:
    text = _size(step.sources[SAMPLE])
    return step.parameters * float(step.recipe["epochs"]) * text / BYTES_A_TOKEN


def _weigh_files(step: Step, manifest: Manifests) -> float:
    recipe = step.recipe
    kinds = list_types(recipe) if "files" in recipe else recipe["quants"]
    whole = sum(step.parameters * FILE_BITS.get(kind, 8.0) / 8 for kind in kinds)
    adapter = manifest("adapter") if recipe.get("files", MERGED) != MERGED else None
    return whole + (adapter.files["adapter_model.safetensors"]["size"] if adapter else 0.0)


WORK: dict[str, Callable[[Step, Manifests], float]] = {
    "sources": _sources,
    "pretraining": _pretraining,
    "training": _training,
    "start": _start,
    "weights": lambda step, _: float(step.parameters),
    "types": lambda step, _: float(step.parameters * (1 + len(step.recipe["quants"]))),
    "held_out": _weigh_held_out,
    "measured": lambda step, _: float(step.parameters * step.recipe["tokens"]),
    "inputs": lambda step, _: float(len(step.inputs)),
}
"""By the name that the table of stages has for it, how work is reckoned."""
SIZES: dict[str, Callable[[Step, Manifests], float]] = {
    "sources": _sources,
    "types": _weigh_files,
    "weights": lambda step, _: step.parameters * 4.0,
    "floats": lambda step, _: (
        step.parameters * (2.0 + 4.0 * (len(step.recipe["floats"]) + step.recipe["folder"]))
    ),
    # LoRA's weights as a share of the base's, roughly: two thin matrices beside each square one of
    # a few hundred rows.
    "lora": lambda step, _: step.parameters * 4.0 * min(1.0, step.recipe["lora"]["rank"] / 230),
    "little": lambda step, _: 2000.0,
}
"""The same of what is left on the disk."""


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
