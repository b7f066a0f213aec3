"""The gguf stage: a merged model becomes GGUF files, each proved equal to what it was made from."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.header import tensors
from meetara_build.llama_cpp.importance import FILE as IMATRIX
from meetara_build.llama_cpp.importance import Imatrix, read_imatrix
from meetara_build.llama_cpp.layout import read_layout
from meetara_build.llama_cpp.model import Floats, Model
from meetara_build.llama_cpp.quants import CONVERTED, check_quant
from meetara_build.setup.check import check_llama
from meetara_build.setup.originals import find_original
from meetara_build.stages.gguf import lora, overrides, proof
from meetara_build.stages.gguf.convert import NAME, Labels, convert, find_known_cut
from meetara_build.stages.gguf.loading import load_model, load_tokenizer, open_made
from meetara_build.stages.gguf.quantize import (
    Fallback,
    check_needs,
    count_types,
    expand,
    quantize,
)
from meetara_build.stages.gguf.vocabulary import PRE, Vocabulary
from meetara_build.stages.recipes.gguf import GgufRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics
from meetara_build.training.chat import read_records

PROMPT_TOKENS = 128
"""Longest text that logits are compared on."""

SPREAD = 200
"""How many records the beginning of the training records is spread over."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys by which configurations tell how many experts there are."""

OWN_TEXTS = 20
"""Texts of the domain that both tokenizers are compared on."""


def run(recipe: GgufRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Make and prove the GGUF files of one model.

    Inputs: ``merged`` (Hugging Face folder in float32, or the base itself), ``dataset`` (text for
    the proofs; optional), ``imatrix`` (where the recipe asks for one), ``adapter`` and ``base``, ``base_gguf`` (folder of
    the base's F16 file; optional: what is proved of its tokens and conversations is not proved
    again). What every file is proved against is base + adapter in float32,
    never a rounded copy. The LoRA file is proved on the base's file, or else by taking it out of
    the merged F16 file again, which has to give the base.

    Raises:
        ConfigError: an unknown type, one that needs an imatrix where there is none or does not fit
            the rows of a tensor, a pattern that matches no tensor, or an unknown architecture.
        ProofError: tokens, conversations or logits differ.
        SetupError: the three parts of llama.cpp are not from one source.
    """
    check_llama()
    _check(recipe)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    stage = _Stage(recipe, inputs, output)
    stage.make_f16()
    stage.prove_f16()
    if recipe.original:
        stage.prove_original()
    stage.make_variants()
    if recipe.lora:
        stage.make_lora()
    (output / "proof.json").write_text(
        json.dumps(stage.report, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    return {
        "logits_distance": stage.report["logits"]["worst"],
        "texts_compared": stage.report["tokens"]["texts"],
        "bytes": {quant: stage.path(quant).stat().st_size for quant in stage.quants},
        "tensors": {quant: _count_stored(stage.path(quant)) for quant in stage.quants},
        "fallbacks": {
            quant: _count_types(found) for quant, found in stage.fallbacks.items() if found
        },
    }


class _Stage:
    """One run; the methods are its steps, ``report`` is what proof.json will say."""

    def __init__(self, recipe: GgufRecipe, inputs: Inputs, output: Path) -> None:
        self.recipe, self.inputs, self.output = recipe, inputs, output
        self.merged = inputs["merged"]
        self.f16 = self.path("F16")
        self.quants = ["F16", *(quant for quant in recipe.quants if quant != "F16")]
        self.labels = Labels.of(recipe)
        folder = inputs.get("base_gguf")
        self.base_file = folder / f"{recipe.base}-F16.gguf" if folder else None
        self.tokenizer = load_tokenizer(self.merged)
        self.records = _records(inputs)
        self.fallbacks: dict[str, list[Fallback]] = {}
        self.report: dict[str, Any] = {"files": {}, MEASURED: {}}

    def path(self, quant: str) -> Path:
        """Where the file of a type is."""
        return self.output / f"{self.recipe.name}-{quant}.gguf"

    def make_f16(self) -> None:
        """The F16 file, with the cut of text that the tokenizers' comparison shows to be right, or
        has shown to be right for the base."""
        started = time.process_time()
        self.conversations = proof.render_conversations(self.tokenizer, self.recipe.system_prompt)
        if self.base_file:
            self._convert_as_base(self.base_file)
        else:
            self._convert_as_proved()
        self._took("F16", started)

    def _convert_as_base(self, base_file: Path) -> None:
        """Convert with the base's vocabulary. All that the base's step has proved of it holds here
        too, as the file's keys are the base's; only the domain's own texts are new."""
        base = read_layout(base_file)
        self.labels = self.labels.switched_as(base.text(NAME), self.recipe.base)
        self.vocabulary = Vocabulary.of(self.merged, self.tokenizer).cut_by(base.text(PRE) or None)
        self.conversations = self.conversations[-2:]  # the system prompt is the domain's own
        convert(self.merged, self.f16, self.labels, self.vocabulary)
        proof.prove_same_keys(self.f16.name, read_layout(self.f16), base)
        rendered = [text for _, _, text in self.conversations if text is not None]
        cases = proof.own_cases(self.tokenizer, self._own_texts(), rendered)
        with open_made(self.f16, vocab_only=True) as model:
            if difference := proof.first_difference(model, cases):
                raise proof.refuse_tokens(difference)
        self.report["tokens"] = {"texts": len(cases), "proved with": base_file.name}

    def _convert_as_proved(self) -> None:
        """Convert with a guess of the vocabulary, and where the proof shows it to be wrong, with
        what is found to be right."""
        vocabulary = Vocabulary.of(self.merged, self.tokenizer)
        if vocabulary.pre and (known := find_known_cut(self.tokenizer, self.merged)):
            vocabulary = vocabulary.cut_by(known)
        rendered = [text for _, _, text in self.conversations if text is not None]
        cases = proof.cases(self.tokenizer, self._own_texts(), rendered)
        convert(self.merged, self.f16, self.labels, vocabulary)
        with open_made(self.f16, vocab_only=True) as model:
            difference = proof.first_difference(model, cases)
        if difference:
            cuts, rstrip = vocabulary.pre is not None, vocabulary.rstrip
            found = proof.search_cut(
                self.f16, self.tokenizer, cases, self.labels.name, cuts=cuts, rstrip=rstrip
            )
            if found is None:
                raise proof.refuse_tokens(difference)
            vocabulary = vocabulary.cut_by(found["pre"])
            self.labels = replace(self.labels, name=found["name"])
            convert(self.merged, self.f16, self.labels, vocabulary)
        self.vocabulary = vocabulary
        self.report["tokens"] = {
            "texts": len(cases),
            "kind": vocabulary.kind,
            "cut": vocabulary.pre,
        }

    def prove_f16(self) -> None:
        """Special tokens, conversations and logits of the F16 file."""
        started = time.process_time()
        model = load_model(self.inputs.get("base", self.merged))
        config = model.config.get_text_config()
        limit = min(
            PROMPT_TOKENS, getattr(config, "max_position_embeddings", None) or PROMPT_TOKENS
        )
        texts = [*(text for _, _, text in self.conversations[-1:] if text), *self._own_texts()[:3]]
        self.prompts = proof.prompts(self.tokenizer, texts, config.vocab_size, limit)
        self.config, self.logits = config, self._reference_logits(model)
        self.report["files"]["F16"] = {"types": count_types(self.f16), "fallbacks": []}
        with open_made(self.f16) as made:
            if not self.base_file:
                proof.prove_special(made, self.tokenizer)
                proof.prove_turn_end(made, self.vocabulary.eot)
            conversations = proof.prove_template(made, self.conversations)
            ours = self._llama_logits(made)
        self.report["conversations"] = conversations
        self.report["logits"] = self._prove_logits(self.f16.name, self.logits, ours)
        self._took("proofs", started)

    def _reference_logits(self, model: PreTrainedModel) -> list[Floats]:
        """The logits of base + adapter in float32, which the files are held to."""
        adapter = self.inputs.get("adapter")
        whole = PeftModel.from_pretrained(model, str(adapter)).eval() if adapter else model
        return [proof.torch_logits(whole, ids) for ids in self.prompts]

    def prove_original(self) -> None:
        """That a base taken back from a GGUF file is what llama.cpp reads from that file: tokens,
        conversations, logits.

        The logits compared are those of the file written out in float32 by llama.cpp. As it is,
        llama.cpp also rounds what goes through a quantized file's layers: how far that is from the
        base is reported, and no fault of it.
        """
        started = time.process_time()
        assert self.recipe.original is not None
        path = find_original(self.recipe.base, self.recipe.original, self.inputs)
        rendered = [text for _, _, text in self.conversations if text is not None]
        with open_made(path) as model:
            difference = proof.first_difference(model, proof.cases(self.tokenizer, (), rendered))
            if difference:
                raise proof.refuse_tokens(difference)
            proof.prove_special(model, self.tokenizer)
            conversations = proof.prove_template(model, self.conversations)
            as_it_is = np.concatenate(
                [*map(proof.distances, self.logits, self._llama_logits(model))]
            )
        with tempfile.TemporaryDirectory(dir=self.output.parent) as scratch:
            whole = Path(scratch) / path.name
            expand(path, whole, self.recipe.threads)
            with open_made(whole) as model:
                figures = self._prove_logits(path.name, self.logits, self._llama_logits(model))
        rounded = {
            "mean": proof.round_figure(float(as_it_is.mean())),
            "worst": proof.round_figure(float(as_it_is.max())),
        }
        self.report["original"] = {"conversations": conversations, **figures, "as it is": rounded}
        self._took("original", started)

    def make_variants(self) -> None:
        """The other types, quantized from the F16 file; F32 and BF16 come from the converter,
        unrounded by F16."""
        types = self._tensor_types()
        importance = self._imatrix()
        overrides.check_importance(types, importance)
        for quant in self.quants[1:]:
            started = time.process_time()
            target, fallbacks = self.path(quant), list[Fallback]()
            if quant in CONVERTED:
                convert(self.merged, target, self.labels, self.vocabulary, quant)
            else:
                fallbacks = quantize(
                    self.f16, target, quant, importance, self.recipe.threads, types
                )
            self.fallbacks[quant] = fallbacks
            self.report["files"][quant] = {
                "types": count_types(target),
                "fallbacks": [*map(str, fallbacks)],
            }
            self._took(quant, started)

    def make_lora(self) -> None:
        """The adapter alone, proved by what llama.cpp computes with it."""
        started = time.process_time()
        path = self.output / f"{self.recipe.name}-lora.gguf"
        weights = lora.convert_adapter(
            self.inputs["adapter"], self.inputs["base"], path, self.labels
        )
        if self.base_file:
            theirs, on, scale = self.logits, self.base_file, 1.0
        else:
            base = load_model(self.inputs["base"])
            theirs, on, scale = (
                [proof.torch_logits(base, ids) for ids in self.prompts],
                self.f16,
                -1.0,
            )
        with Model(on) as model:
            ours = self._llama_logits(model, path, scale)
        figures = self._prove_logits(path.name, theirs, ours)
        self.report["lora"] = {"weights": weights, **figures}
        self._took("LoRA", started)

    def _prove_logits(
        self, label: str, theirs: Sequence[Floats], ours: Sequence[Floats]
    ) -> dict[str, float]:
        config = self.config
        reference = "base + adapter" if "adapter" in self.inputs else "the base"
        window = getattr(config, "sliding_window", None)
        narrow = window is not None and window < PROMPT_TOKENS
        hint = (
            f"(config.json has a sliding_window of {window}, which llama.cpp may not apply.) "
            if narrow
            else ""
        )
        routed = any(getattr(config, key, None) for key in EXPERTS)
        pairs = zip(theirs, ours, strict=True)
        return proof.prove_logits(
            label, reference, pairs, self.recipe.logits_bound, routed=routed, hint=hint
        )

    def _llama_logits(
        self, model: Model, adapter: Path | None = None, scale: float = 1.0
    ) -> list[Floats]:
        longest = max(map(len, self.prompts))
        threads = self.recipe.threads
        with model.session(
            longest, threads=threads, exact=True, lora=adapter, scale=scale
        ) as session:
            return [session.logits(ids) for ids in self.prompts]

    def _tensor_types(self) -> dict[str, str]:
        """The tensors of quantized files that have a type of their own."""
        patterns = self.recipe.tensor_types
        quantized = next((quant for quant in self.quants if quant not in CONVERTED), None)
        return overrides.resolve(patterns, self.f16, quantized) if patterns and quantized else {}

    def _imatrix(self) -> Imatrix:
        """Importance of the weights' columns, as measured for the base; empty where it is not
        wanted."""
        if not self.recipe.imatrix:
            return {}
        importance = read_imatrix(self.inputs["imatrix"] / IMATRIX)
        self.report["imatrix"] = {"tensors": len(importance)}
        return importance

    def _own_texts(self) -> list[str]:
        contents = (message["content"] for record in self.records for message in record["messages"])
        return list(islice(dict.fromkeys(contents), OWN_TEXTS))

    def _took(self, step: str, started: float) -> None:
        self.report[MEASURED][f"{step} cpu seconds"] = round(time.process_time() - started, 3)


def _check(recipe: GgufRecipe) -> None:
    for quant in recipe.quants:
        try:
            check_quant(quant)
        except ValueError as error:
            raise ConfigError(f"quants of the domain's file: {error}") from error
    check_needs(list(recipe.quants), recipe.imatrix)


def _count_stored(path: Path) -> dict[str, dict[str, int]]:
    """Bytes of a file's tensors by what they are and how they are stored:
    ``{"attn_v": {"q4_K": 98304, "q6_K": 53760}}``."""
    found: dict[str, dict[str, int]] = {}
    for name, tensor in tensors(path).items():
        by_type = found.setdefault(overrides.group(name), {})
        by_type[tensor.type] = by_type.get(tensor.type, 0) + tensor.size
    return found


def _count_types(fallbacks: Sequence[Fallback]) -> dict[str, int]:
    """How many tensors of which kind have rows that do not fit."""
    return dict(sorted(Counter(overrides.group(fallback.tensor) for fallback in fallbacks).items()))


def _records(inputs: Inputs) -> list[dict[str, Any]]:
    """The training records, in an order whose beginning is spread over the whole file: topics stand
    together there."""
    if "dataset" not in inputs:
        return []
    records = list(read_records(inputs["dataset"] / "train.jsonl"))
    step = max(1, len(records) // SPREAD)
    return [record for start in range(step) for record in records[start::step]]
