"""merge: base and adapter as one model, proven to compute what the two computed together."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from meetara_build.errors import ProofError
from meetara_build.stages.types import Inputs, Metrics, Recipe
from meetara_build.training.chat import encode, read_records
from meetara_build.training.model import load_model, load_tokenizer

TEXTS = 8
"""Validation records whose logits are compared."""
TEXT_TOKENS = 256
"""Tokens of each, from its start."""
COPIED = (".json", ".jinja", ".txt", ".model")
NOT_COPIED = ("manifest.json", "model.safetensors.index.json")
ROUNDING = {torch.float64: 1.0, torch.float32: 1.0, torch.float16: 16.0, torch.bfloat16: 128.0}
"""How much farther from base + adapter the logits may lie once weights are rounded. float16 keeps 13 bits less than
float32 and bfloat16 16, but rounding errors of many weights cancel out: these are set from what random models show."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def run(recipe: Recipe, inputs: Inputs, output: Path) -> Metrics:
    """Write a Hugging Face folder: one model.safetensors in the base's precision, the base's other files as they are.

    ``W + scale * B A`` is worked out in float32 by PEFT (DoRA and rsLoRA included). Two proofs, each the largest
    difference between logits on validation texts: the merged weights in float32 against base + adapter, and, where
    the base is kept in fewer bits, the file as saved.

    Args:
        recipe: domain, threads, bound: largest difference allowed, as a share of the largest logit, for float32;
            ROUNDING widens it for what is saved in fewer bits.
        inputs: base, adapter and dataset folders.

    Raises:
        ProofError: a difference beyond its bound, or a merged model equal to the base.
    """
    base, domain = inputs["base"], recipe["domain"]
    texts = _texts(inputs)
    model = load_model(base, torch.float32)
    plain = _logits(model, texts)
    adapted = PeftModel.from_pretrained(model, str(inputs["adapter"])).eval()
    expected = _logits(adapted, texts)
    merged = adapted.merge_and_unload()
    exact = _difference(_logits(merged, texts), expected)
    _refuse_beyond(exact, recipe["bound"], f"{domain}: merged in float32")

    dtype = stored_dtype(base)
    _save(merged.to(dtype), base, output)
    saved = _logits(load_model(output, torch.float32), texts)
    difference, change = _difference(saved, expected), _difference(saved, plain)
    precision = str(dtype).removeprefix("torch.")
    _refuse_beyond(difference, recipe["bound"] * ROUNDING[dtype], f"{domain}: saved as {precision}")
    if change == 0:
        raise ProofError(
            f"{domain}: the merged model's logits equal the base's, so the adapter has no effect as {precision}: "
            "train longer, raise lora.alpha, or keep the base in float32"
        )
    return {
        "precision": precision,
        "merge_difference": exact,
        "saved_difference": difference,
        "change_from_base": change,
        "texts_compared": len(texts),
    }


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision that most of the folder's weights are stored in, by number of values."""
    counts: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                part = file.get_slice(name)
                size = 1
                for extent in part.get_shape():
                    size *= extent
                counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + size
    return DTYPES[max(counts, key=lambda name: counts[name])]


def _texts(inputs: Inputs) -> list[Tensor]:
    """[1, L] token ids of a few validation records, or of training records where there is no validation record."""
    tokenizer = load_tokenizer(inputs["base"])
    for name in ("validation.jsonl", "train.jsonl"):
        records = [record for _, record in zip(range(TEXTS), read_records(inputs["dataset"] / name), strict=False)]
        if records:
            return [torch.tensor([encode(tokenizer, record["messages"]).ids[:TEXT_TOKENS]]) for record in records]
    raise ProofError("dataset: no record to compare logits on: give the domain some data")


@torch.no_grad()
def _logits(model: torch.nn.Module, texts: Sequence[Tensor]) -> list[Tensor]:
    model.eval()
    return [model(input_ids=text, use_cache=False).logits[0].float() for text in texts]


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest difference of any logit as a share of the largest logit; not-a-number anywhere gives not-a-number."""
    largest = torch.stack([logits.abs().max() for logits in other]).max()
    difference = torch.stack([(a - b).abs().max() for a, b in zip(one, other, strict=True)]).max()
    return (difference / largest.clamp(min=1e-30)).item()


def _refuse_beyond(difference: float, bound: float, what: str) -> None:
    if not difference <= bound:  # also refuses not-a-number
        raise ProofError(
            f"{what}: logits differ from base + adapter by {difference:.3g} of the largest logit, allowed are "
            f"{bound:.3g}: build the adapter again; if it stays, raise merge.logits_bound, or take another base"
        )


def _save(merged: PreTrainedModel, base: Path, output: Path) -> None:
    """The weights as transformers names them, and the base's configuration, tokenizer and template byte for byte."""
    merged.save_pretrained(output, max_shard_size="1000GB")
    for path in sorted(base.iterdir()):
        if path.suffix in COPIED and path.name not in NOT_COPIED and path.is_file():
            shutil.copyfile(path, output / path.name)
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise ProofError(f"{base.name}: config.json says the base is quantized: merge needs plain weights")
