"""merge: base and adapter as one model in float GGUF files, proven to compute what the two computed
together."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from meetara_build.errors import LogitsError, NoEffectError, ProofError
from meetara_build.llama_cpp.layout import Layout, read_layout, write_changed
from meetara_build.llama_cpp.model import Floats
from meetara_build.outside import parse_json
from meetara_build.setup.check import check_llama
from meetara_build.stages.gguf.convert import NAME, Labels, convert
from meetara_build.stages.gguf.loading import load_tokenizer, open_made
from meetara_build.stages.gguf.placing import Placing
from meetara_build.stages.gguf.proof import torch_logits
from meetara_build.stages.gguf.reference import Prompts, Reference, find_prompts, run_prompts
from meetara_build.stages.gguf.vocabulary import PRE, Vocabulary
from meetara_build.stages.recipes.merge import MergeRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.model import load_model

COPIED = (".json", ".jinja", ".txt", ".model")
NOT_COPIED = ("manifest.json", "model.safetensors.index.json", "origin.json")


def run(recipe: MergeRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``DOMAIN-F16.gguf``: a copy of the base's own F16 file, in which the weights that the
    adapter changes are the merged ones.

    ``W + scale * B A`` is worked out in float32 by PEFT (DoRA and rsLoRA included), transformed as
    the converter does, and rounded once, to F16. All other tensors are the base's bit for bit. A
    base whose weights cannot be placed one by one (fused experts, shared or joined weights) is
    merged and converted whole, and the figures say why.

    Two proofs against base + adapter in float32, on three short texts: of the merged weights in
    float32, as the largest difference of a logit; and of the file, run by llama.cpp.

    Args:
        inputs: base, base_gguf, adapter and dataset folders.

    Raises:
        NoEffectError: a merged model equal to the base.
        ProofError: a difference beyond its bound.
    """
    check_llama()
    base_file = read_layout(inputs["base_gguf"] / f"{recipe.base}-F16.gguf")
    model = load_model(inputs["base"], torch.float32)
    config = model.config.get_text_config()
    tokenizer = load_tokenizer(inputs["base"])
    prompts = find_prompts(tokenizer, config, inputs["dataset"], "validation", "train")
    plain = _logits(model, prompts)
    adapted = PeftModel.from_pretrained(model, str(inputs["adapter"])).eval()
    expected = _logits(adapted, prompts)
    placing = Placing(inputs["base"], base_file)
    names = list(placing.find_changed(adapted))
    merged = adapted.merge_and_unload()
    found = _logits(merged, prompts)
    reference = Reference(config, prompts, expected, lambda: merged)
    difference = _difference(found, expected)
    change = _difference(found, plain)
    _refuse_beyond(difference, recipe.bound, recipe.domain)
    if change == 0:
        raise NoEffectError(
            f"{recipe.domain}: the merged model's logits equal the base's, so the adapter has no "
            "effect: train longer, or raise lora.alpha"
        )
    _write(recipe, inputs, output, merged, names, placing, base_file)
    path = output / f"{recipe.domain}-F16.gguf"
    with open_made(path) as made:
        ours = run_prompts(made, prompts, recipe.threads)
    figures = reference.prove(path.name, ours, recipe.logits_bound)
    return {
        "merge_difference": difference,
        "change_from_base": change,
        "logits_distance": figures["worst"],
        "positions_compared": figures["positions"],
        **({key: figures[key] for key in ("unstable_positions",) if key in figures}),
        "weights": len(names),
        **({"converted_whole": placing.reason} if placing.reason else {}),
    }


@torch.no_grad()
def _logits(model: torch.nn.Module, prompts: Prompts) -> list[Floats]:
    return [torch_logits(model, ids) for ids in prompts]


def _difference(one: Sequence[Floats], other: Sequence[Floats]) -> float:
    """Largest difference of any logit as a share of the largest logit; not-a-number anywhere gives
    not-a-number."""
    largest = np.stack([np.abs(logits).max() for logits in other]).max()
    difference = np.stack([np.abs(a - b).max() for a, b in zip(one, other, strict=True)]).max()
    return float(difference / max(largest, 1e-30))


def _refuse_beyond(difference: float, bound: float, domain: str) -> None:
    if not difference <= bound:  # also refuses not-a-number
        kind = ProofError if math.isfinite(difference) else LogitsError
        raise kind(
            f"{domain}: merged logits differ from base + adapter by {difference:.3g} of the "
            f"largest logit, allowed are {bound:.3g}: build the adapter again; if it stays, raise "
            "merge.bound, or take another base"
        )


def _write(
    recipe: MergeRecipe,
    inputs: Inputs,
    output: Path,
    merged: PreTrainedModel,
    names: Sequence[str],
    placing: Placing,
    base_file: Layout,
) -> None:
    """The float files, and the folder if it is wanted."""
    base = inputs["base"]
    labels = Labels.of_domain(recipe.domain, recipe.base, recipe.licence, recipe.recipe)
    labels = labels.switched_as(base_file.text(NAME), recipe.base)
    whole = list(recipe.floats)
    if not placing.reason:
        path = output / f"{recipe.domain}-F16.gguf"
        source = inputs["base_gguf"] / f"{recipe.base}-F16.gguf"
        weights = {name: merged.get_parameter(name).data for name in names}
        write_changed(source, path, labels.own(), placing.list_weights(weights))
    if placing.reason:
        whole.append("F16")
    if not (whole or recipe.folder):
        return
    with _folder(recipe, output) as folder:
        _save(merged, base, folder)
        vocabulary = Vocabulary.of(base, load_tokenizer(base)).cut_by(base_file.text(PRE) or None)
        for quant in whole:
            convert(folder, output / f"{recipe.domain}-{quant}.gguf", labels, vocabulary, quant)


@contextmanager
def _folder(recipe: MergeRecipe, output: Path) -> Iterator[Path]:
    """Where the merged model is saved: beside the files if it is to be kept."""
    if recipe.folder:
        yield output
        return
    with TemporaryDirectory(dir=output.parent) as scratch:
        yield Path(scratch)


def _save(merged: PreTrainedModel, base: Path, output: Path) -> None:
    """The weights as transformers names them, in float32; the base's tokenizer and template byte
    for byte, its configuration but for the type."""
    merged.save_pretrained(output, max_shard_size="1000GB")
    for path in sorted(base.iterdir()):
        if path.suffix in COPIED and path.name not in NOT_COPIED and path.is_file():
            shutil.copyfile(path, output / path.name)
    config = parse_json((output / "config.json").read_text(encoding="utf-8"))
    known = {key: "float32" for key in ("dtype", "torch_dtype") if key in config}
    (output / "config.json").write_text(
        json.dumps({**config, **known}, indent=2) + "\n", encoding="utf-8"
    )
