"""The quantize stage: a base's own file in smaller types, which its domains' adapters are used
on."""

from pathlib import Path

from meetara_build.llama_cpp.importance import FILE, read_imatrix
from meetara_build.setup.check import check_llama
from meetara_build.stages.gguf import overrides
from meetara_build.stages.gguf.quantize import (
    Fallback,
    check_needs,
    count_stored,
    quantize,
    summarize_fallbacks,
)
from meetara_build.stages.recipes.quantize import QuantizeRecipe
from meetara_build.stages.types import Inputs, Metrics


def run(recipe: QuantizeRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Quantize the base's proved F16 file. How far a type is from F16 shows on each domain's
    records, its adapter added, and is held to that domain's bounds.

    Inputs: ``base_gguf``, and ``imatrix`` where the recipe asks for it.

    Raises:
        ConfigError: a type that needs an imatrix where there is none, or does not fit the rows of a
            tensor, or a pattern that matches no tensor.
        ProofError: llama.cpp refuses a type.
        SetupError: the three parts of llama.cpp are not from one source.
    """
    check_llama()
    check_needs(recipe.quants, recipe.imatrix, f"base.quants of {recipe.base}")
    source = inputs["base_gguf"] / f"{recipe.base}-F16.gguf"
    importance = read_imatrix(inputs["imatrix"] / FILE) if recipe.imatrix else {}
    types = (
        overrides.resolve(recipe.tensor_types, source, recipe.quants[0])
        if recipe.tensor_types
        else {}
    )
    overrides.check_importance(types, importance)
    paths = {quant: output / f"{recipe.base}-{quant}.gguf" for quant in recipe.quants}
    fallbacks: dict[str, list[Fallback]] = {
        quant: quantize(source, path, quant, importance, recipe.threads, types)
        for quant, path in paths.items()
    }
    return {
        "bytes": {quant: path.stat().st_size for quant, path in paths.items()},
        "tensors": {quant: count_stored(path) for quant, path in paths.items()},
        "fallbacks": summarize_fallbacks(fallbacks),
    }
