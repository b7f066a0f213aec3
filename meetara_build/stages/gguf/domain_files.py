"""A domain's GGUF files, from the merged model that the stage before has proved and from the
adapter."""

import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from meetara_build.errors import NoEffectError
from meetara_build.llama_cpp.layout import Layout, read_layout
from meetara_build.llama_cpp.model import Model
from meetara_build.stages.gguf import lora, proof
from meetara_build.stages.gguf.convert import NAME
from meetara_build.stages.gguf.files import Files
from meetara_build.stages.gguf.loading import open_made
from meetara_build.stages.gguf.quantize import count_types
from meetara_build.stages.gguf.reference import measure_reference, run_prompts
from meetara_build.stages.types import Metrics
from meetara_build.training.chat import read_records

SPREAD = 200
"""How many records the beginning of the training records is spread over."""
OWN_TEXTS = 20
"""Texts of the domain that both tokenizers are compared on."""


class DomainFiles(Files):
    """A domain's model and its adapter alone, on its base's file."""

    @property
    def base_file(self) -> Path:
        """The base's own file, whose tokens and conversations are proved."""
        return self.inputs["base_gguf"] / f"{self.recipe.base}-F16.gguf"

    def make(self) -> Metrics:
        """Make and prove everything."""
        base = read_layout(self.base_file)
        self.labels = self.labels.switched_as(base.text(NAME), self.recipe.base)
        if self.recipe.files == "lora":
            self._prove_texts(self.base_file)
        else:
            self._take_f16(base)
            self.make_variants(self._take)
        if self.recipe.files == "merged":
            return self.finish()
        self._make_lora()
        return {**self.finish(), "lora_bytes": self.path("lora").stat().st_size}

    def _take(self, quant: str, target: Path) -> None:
        """A float file is the merge stage's, as it is."""
        shutil.copyfile(self.inputs["merged"] / target.name, target)

    def _take_f16(self, base: Layout) -> None:
        """Take the F16 file over, whose keys have to be the base's."""
        started = time.process_time()
        self._take("F16", self.f16)
        proof.prove_same_keys(self.f16.name, read_layout(self.f16), base)
        self._prove_texts(self.f16)
        self.report["files"]["F16"] = {"types": count_types(self.f16), "fallbacks": []}
        self.took("F16", started)

    def _prove_texts(self, path: Path) -> None:
        """The domain's own texts and its system prompt: all else about tokens and conversations is
        the base's, and its step has proved it."""
        conversations = proof.render_conversations(self.tokenizer, self.recipe.system_prompt)[-2:]
        rendered = [text for _, _, text in conversations if text is not None]
        cases = proof.own_cases(self.tokenizer, self._own_texts(), rendered)
        with open_made(path, vocab_only=True) as model:
            if difference := proof.first_difference(model, cases):
                raise proof.refuse_tokens(difference)
            self.report["conversations"] = proof.prove_template(model, conversations)
        self.report["tokens"] = {"texts": len(cases), "proved with": self.base_file.name}

    def _make_lora(self) -> None:
        """The adapter alone, proved by what llama.cpp computes with it on the base's file."""
        started = time.process_time()
        path, inputs = self.path("lora"), self.inputs
        weights = lora.convert_adapter(inputs["adapter"], inputs["base"], path, self.labels)
        reference = measure_reference(
            self.tokenizer, inputs["base"], inputs["adapter"], inputs["dataset"]
        )
        with Model(self.base_file) as model:
            ours = run_prompts(model, reference.prompts, self.recipe.threads, path)
            plain = run_prompts(model, reference.prompts, self.recipe.threads)
        if all(map(np.array_equal, ours, plain)):
            raise NoEffectError(
                f"{path.name}: the base answers the same with the adapter as without: train "
                "longer, or raise lora.alpha"
            )
        figures = reference.prove(path.name, ours, self.recipe.logits_bound)
        self.report["lora"] = {"weights": weights, **figures}
        self.took("LoRA", started)

    def _own_texts(self) -> list[str]:
        contents = (
            message["content"]
            for record in _spread_records(self.inputs["dataset"])
            for message in record["messages"]
        )
        return list(islice(dict.fromkeys(contents), OWN_TEXTS))


def _spread_records(dataset: Path) -> list[Mapping[str, Any]]:
    """The training records, in an order whose beginning is spread over the whole file: topics stand
    together there."""
    records = list(read_records(dataset / "train.jsonl"))
    step = max(1, len(records) // SPREAD)
    return [record for start in range(step) for record in records[start::step]]
