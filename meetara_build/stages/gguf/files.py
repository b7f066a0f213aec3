"""What a base's GGUF files and a domain's have in common: their names, their quantized types, and
what is told of them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meetara_build.llama_cpp.importance import FILE as IMATRIX
from meetara_build.llama_cpp.importance import Imatrix, read_imatrix
from meetara_build.llama_cpp.quants import CONVERTED
from meetara_build.stages.gguf import overrides
from meetara_build.stages.gguf.convert import Labels
from meetara_build.stages.gguf.loading import load_tokenizer
from meetara_build.stages.gguf.quantize import (
    Fallback,
    count_stored,
    count_types,
    quantize,
    summarize_fallbacks,
)
from meetara_build.stages.recipes.gguf import GgufRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics


class Files:
    """One run; the methods are its steps, ``report`` is what proof.json will say."""

    def __init__(self, recipe: GgufRecipe, inputs: Inputs, output: Path) -> None:
        self.recipe, self.inputs, self.output = recipe, inputs, output
        self.f16 = self.path("F16")
        whole = ["F16", *(quant for quant in recipe.quants if quant != "F16")]
        self.quants = [] if recipe.files == "lora" else whole
        self.labels = Labels.of(recipe)
        self.tokenizer = load_tokenizer(inputs["base"])
        self.fallbacks: dict[str, list[Fallback]] = {}
        self.report: dict[str, Any] = {"files": {}, MEASURED: {}}

    def path(self, quant: str) -> Path:
        """Where the file of a type is."""
        return self.output / f"{self.recipe.name}-{quant}.gguf"

    def make_variants(self, write_float: Callable[[str, Path], None]) -> None:
        """The other types, quantized from the F16 file; ``write_float`` makes F32 and BF16,
        unrounded by F16."""
        types = self._tensor_types()
        importance = self._imatrix()
        overrides.check_importance(types, importance)
        for quant in self.quants[1:]:
            started = time.process_time()
            target, fallbacks = self.path(quant), list[Fallback]()
            if quant in CONVERTED:
                write_float(quant, target)
            else:
                fallbacks = quantize(
                    self.f16, target, quant, importance, self.recipe.threads, types
                )
            self.fallbacks[quant] = fallbacks
            self.report["files"][quant] = {
                "types": count_types(target),
                "fallbacks": [*map(str, fallbacks)],
            }
            self.took(quant, started)

    def finish(self) -> Metrics:
        """Write proof.json; the figures of all files."""
        (self.output / "proof.json").write_text(
            json.dumps(self.report, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        return {
            "texts_compared": self.report["tokens"]["texts"],
            "bytes": {quant: self.path(quant).stat().st_size for quant in self.quants},
            "tensors": {quant: count_stored(self.path(quant)) for quant in self.quants},
            "fallbacks": summarize_fallbacks(self.fallbacks),
        }

    def took(self, step: str, started: float) -> None:
        """Tell what a step took."""
        self.report[MEASURED][f"{step} cpu seconds"] = round(time.process_time() - started, 3)

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
