"""A base, an adapter, a merged model and a dataset, all tiny and random, as the stages hand them
on."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from small_models import CORPUS, make_model, train_tokenizer

from meetara_build.stages import gguf, imatrix, merge
from meetara_build.stages.recipes.gguf import GgufRecipe
from meetara_build.stages.recipes.imatrix import ImatrixRecipe
from meetara_build.stages.recipes.merge import MergeRecipe


def recipe(**changes: Any) -> GgufRecipe:
    """A recipe of the gguf stage."""
    given = {
        "name": "nutrition",
        "domain": "nutrition",
        "base": "tiny",
        "licence": "apache-2.0",
        "recipe": "0123456789abcdef",
        "quants": ["F16"],
        "imatrix": False,
        "files": "merged",
        "tensor_types": {},
        "threads": 1,
        "logits_bound": 0.02,
        "system_prompt": None,
        **changes,
    }
    return GgufRecipe.model_validate(given)


def merge_recipe(**changes: Any) -> MergeRecipe:
    """A recipe of the merge stage."""
    given = {
        "domain": "nutrition",
        "base": "tiny",
        "licence": "apache-2.0",
        "recipe": "0123456789abcdef",
        "threads": 1,
        "bound": 1e-3,
        "logits_bound": 0.02,
        **changes,
    }
    return MergeRecipe.model_validate(given)


@dataclass(frozen=True)
class Build:
    """Folders of one trained domain."""

    base: Path
    adapter: Path
    merged: Path
    dataset: Path

    def inputs(self, floats: Sequence[str] = (), **more: Path) -> Mapping[str, Path]:
        """The gguf stage's inputs of a domain, made by the stages before it."""
        own = {"base": self.base, "adapter": self.adapter, "dataset": self.dataset}
        if "base_gguf" not in more:
            more["base_gguf"] = self.make_base_gguf()
        if "merged" not in more:
            more["merged"] = fresh(self.base.parent / "merged_gguf")
            self.merge({**own, **more}, more["merged"], floats=list(floats))
        return {**own, **more}

    def make_base_gguf(self) -> Path:
        """A folder with the base's own file."""
        output = fresh(self.base.parent / "base_gguf")
        gguf.run(recipe(name="tiny", domain=None, recipe=None), {"base": self.base}, output)
        return output

    def merge(self, inputs: Mapping[str, Path], output: Path, **changes: Any) -> Mapping[str, Any]:
        """The merge stage on these inputs."""
        return merge.run(merge_recipe(**changes), inputs, output)

    def importance(self, tokens: int = 1024) -> Path:
        """A folder with the base's importance matrix, over the training records."""
        output = fresh(self.base.parent / "imatrix")
        asked = ImatrixRecipe(base="tiny", tokens=tokens, threads=1)
        imatrix.run(asked, {"base": self.base, "sample": self.dataset / "train.jsonl"}, output)
        return output


def train_nothing(
    root: Path,
    kind: str = "llama",
    cut: str = "gpt2",
    lora: Mapping[str, Any] | None = None,
    **model: Any,
) -> Build:
    """A base and a random adapter on it, merged."""
    build = Build(*(root / name for name in ("base", "adapter", "merged", "dataset")))
    for folder in (build.base, build.dataset):
        folder.mkdir(parents=True)
    train_tokenizer(build.base, cut)
    base = make_model(build.base, kind, **model)
    shutil.copytree(build.base, build.merged)
    torch.manual_seed(1)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", **(lora or {})}
    adapted = peft.get_peft_model(base, peft.LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.05)
    adapted.save_pretrained(build.adapter, save_embedding_layers=False)
    adapted.merge_and_unload().save_pretrained(build.merged)
    for part, texts in (("train", CORPUS), ("validation", CORPUS[:3]), ("test", CORPUS[:5])):
        lines = [
            {
                "id": f"{number:016x}",
                "topic": None,
                "language": "en",
                "messages": [
                    {"role": "user", "content": text[:50]},
                    {"role": "assistant", "content": text},
                ],
            }
            for number, text in enumerate(texts)
        ]
        (build.dataset / f"{part}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), "utf-8"
        )
    return build


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
