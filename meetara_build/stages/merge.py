"""merge: base and adapter as one model, proven to compute what the two computed together."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from meetara_build.errors import LogitsError, NoEffectError, ProofError
from meetara_build.outside import parse_json
from meetara_build.stages.recipes.merge import MergeRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.chat import encode, read_records
from meetara_build.training.model import load_model, load_tokenizer

TEXTS = 8
"""Validation records whose logits are compared."""
TEXT_TOKENS = 256
"""Tokens of each, from its start."""
COPIED = (".json", ".jinja", ".txt", ".model")
NOT_COPIED = ("manifest.json", "model.safetensors.index.json", "origin.json")


def run(recipe: MergeRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write a Hugging Face folder: one model.safetensors in float32, the base's other files as they
    are.

    ``W + scale * B A`` is worked out in float32 by PEFT (DoRA and rsLoRA included), and written so:
    rounded to a base's bfloat16 most of a short training is lost, and a GGUF file of type F16 keeps
    eight times more of it. The proof is the largest difference between logits of merged weights and
    of base + adapter, on validation texts.

    Args:
        inputs: base, adapter and dataset folders.

    Raises:
        ProofError: a difference beyond its bound, or a merged model equal to the base.
    """
    base, domain = inputs["base"], recipe.domain
    texts = _texts(inputs)
    model = load_model(base, torch.float32)
    plain = _logits(model, texts)
    adapted = PeftModel.from_pretrained(model, str(inputs["adapter"])).eval()
    expected = _logits(adapted, texts)
    merged = adapted.merge_and_unload()
    found = _logits(merged, texts)
    difference, change = _difference(found, expected), _difference(found, plain)
    _refuse_beyond(difference, recipe.bound, domain)
    if change == 0:
        raise NoEffectError(
            f"{domain}: the merged model's logits equal the base's, so the adapter has no effect: "
            "train longer, or raise lora.alpha"
        )
    _save(merged, base, output)
    return {
        "merge_difference": difference,
        "change_from_base": change,
        "texts_compared": len(texts),
    }


def _texts(inputs: Inputs) -> list[Tensor]:
    """[1, L] token ids of a few validation records, or of training records where there is no
    validation record."""
    tokenizer = load_tokenizer(inputs["base"])
    for name in ("validation.jsonl", "train.jsonl"):
        records = [
            record
            for _, record in zip(range(TEXTS), read_records(inputs["dataset"] / name), strict=False)
        ]
        if records:
            return [
                torch.tensor([encode(tokenizer, record["messages"]).ids[:TEXT_TOKENS]])
                for record in records
            ]
    raise ProofError("dataset: no record to compare logits on: give the domain some data")


@torch.no_grad()
def _logits(model: torch.nn.Module, texts: Sequence[Tensor]) -> list[Tensor]:
    model.eval()
    return [model(input_ids=text, use_cache=False).logits[0].float() for text in texts]


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest difference of any logit as a share of the largest logit; not-a-number anywhere gives
    not-a-number."""
    largest = torch.stack([logits.abs().max() for logits in other]).max()
    difference = torch.stack([(a - b).abs().max() for a, b in zip(one, other, strict=True)]).max()
    return (difference / largest.clamp(min=1e-30)).item()


def _refuse_beyond(difference: float, bound: float, domain: str) -> None:
    if not difference <= bound:  # also refuses not-a-number
        kind = ProofError if math.isfinite(difference) else LogitsError
        raise kind(
            f"{domain}: merged logits differ from base + adapter by {difference:.3g} of the "
            f"largest logit, allowed are {bound:.3g}: build the adapter again; if it stays, raise "
            "merge.bound, or take another base"
        )


def _save(merged: PreTrainedModel, base: Path, output: Path) -> None:
    """The weights as transformers names them; the base's tokenizer and template byte for byte, its
    configuration but for the type."""
    merged.save_pretrained(output, max_shard_size="1000GB")
    for path in sorted(base.iterdir()):
        if path.suffix in COPIED and path.name not in NOT_COPIED and path.is_file():
            shutil.copyfile(path, output / path.name)
    config = parse_json((output / "config.json").read_text(encoding="utf-8"))
    known = {key: "float32" for key in ("dtype", "torch_dtype") if key in config}
    (output / "config.json").write_text(
        json.dumps({**config, **known}, indent=2) + "\n", encoding="utf-8"
    )
