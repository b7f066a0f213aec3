"""A base's own GGUF files: converted, and proved in all that domains' files then have from them."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from meetara_build.setup.originals import find_original
from meetara_build.stages.gguf import proof
from meetara_build.stages.gguf.convert import convert, find_known_cut
from meetara_build.stages.gguf.files import Files
from meetara_build.stages.gguf.loading import open_made
from meetara_build.stages.gguf.quantize import count_types, expand
from meetara_build.stages.gguf.reference import prove_logits, run_prompts
from meetara_build.stages.gguf.vocabulary import Vocabulary
from meetara_build.stages.types import Metrics
from meetara_build.training.model import load_model

PROMPT_TOKENS = 128
"""Longest text that logits are compared on."""


class BaseFiles(Files):
    """A base alone."""

    def make(self) -> Metrics:
        """Make and prove everything."""
        self._make_f16()
        self._prove_f16()
        if self.recipe.original:
            self._prove_original()
        base, vocabulary = self.inputs["base"], self.vocabulary
        self.make_variants(
            lambda quant, target: convert(base, target, self.labels, vocabulary, quant)
        )
        return {"logits_distance": self.report["logits"]["worst"], **self.finish()}

    def _make_f16(self) -> None:
        """Convert with a guess of the vocabulary, and where the proof shows it to be wrong, with
        what is found to be right."""
        started, base = time.process_time(), self.inputs["base"]
        vocabulary = Vocabulary.of(base, self.tokenizer)
        if vocabulary.pre and (known := find_known_cut(self.tokenizer, base)):
            vocabulary = vocabulary.cut_by(known)
        self.conversations = proof.render_conversations(self.tokenizer, self.recipe.system_prompt)
        rendered = [text for _, _, text in self.conversations if text is not None]
        cases = proof.cases(self.tokenizer, (), rendered)
        convert(base, self.f16, self.labels, vocabulary)
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
            convert(base, self.f16, self.labels, vocabulary)
        self.vocabulary = vocabulary
        self.report["tokens"] = {
            "texts": len(cases),
            "kind": vocabulary.kind,
            "cut": vocabulary.pre,
        }
        self.report["files"]["F16"] = {"types": count_types(self.f16), "fallbacks": []}
        self.took("F16", started)

    def _prove_f16(self) -> None:
        """Special tokens, conversations and logits of the F16 file."""
        started = time.process_time()
        model = load_model(self.inputs["base"], torch.float32)
        self.config = model.config.get_text_config()
        longest = getattr(self.config, "max_position_embeddings", None) or PROMPT_TOKENS
        texts = [text for _, _, text in self.conversations[-1:] if text]
        self.prompts = proof.prompts(
            self.tokenizer, texts, self.config.vocab_size, min(PROMPT_TOKENS, longest)
        )
        self.logits = [proof.torch_logits(model, ids) for ids in self.prompts]
        with open_made(self.f16) as made:
            proof.prove_special(made, self.tokenizer)
            proof.prove_turn_end(made, self.vocabulary.eot)
            self.report["conversations"] = proof.prove_template(made, self.conversations)
            ours = run_prompts(made, self.prompts, self.recipe.threads)
        bound = self.recipe.logits_bound
        self.report["logits"] = prove_logits(
            self.f16.name, "the base", self.config, (self.logits, ours), bound
        )
        self.took("proofs", started)

    def _prove_original(self) -> None:
        """That a base taken back from a GGUF file is what llama.cpp reads from that file: tokens,
        conversations, logits.

        The logits compared are those of the file written out in float32 by llama.cpp. As it is,
        llama.cpp also rounds what goes through a quantized file's layers: how far that is from the
        base is reported, and no fault of it.
        """
        started, threads = time.process_time(), self.recipe.threads
        assert self.recipe.original is not None
        path = find_original(self.recipe.base, self.recipe.original, self.inputs)
        rendered = [text for _, _, text in self.conversations if text is not None]
        # What is added around a text is our file's own: see find_added.
        cases = [case for case in proof.cases(self.tokenizer, (), rendered) if not case.add_special]
        with open_made(path) as model:
            difference = proof.first_difference(model, cases)
            if difference:
                raise proof.refuse_tokens(difference)
            proof.prove_special(model, self.tokenizer)
            conversations = proof.prove_template(model, self.conversations)
            found = run_prompts(model, self.prompts, threads)
        as_it_is = np.concatenate([*map(proof.distances, self.logits, found)])
        with tempfile.TemporaryDirectory(dir=self.output.parent) as scratch:
            whole = Path(scratch) / path.name
            expand(path, whole, threads)
            with open_made(whole) as model:
                found = run_prompts(model, self.prompts, threads)
        figures = prove_logits(
            path.name, "the base", self.config, (self.logits, found), self.recipe.logits_bound
        )
        rounded = {
            "mean": proof.round_figure(float(as_it_is.mean())),
            "worst": proof.round_figure(float(as_it_is.max())),
        }
        self.report["original"] = {"conversations": conversations, **figures, "as it is": rounded}
        self.took("original", started)
