"""The gguf stage: models become GGUF files, each proved equal to what it was made from."""

from pathlib import Path

from transformers.utils import logging as transformers_logging

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.quants import check_quant
from meetara_build.setup.check import check_llama
from meetara_build.stages.gguf.base_files import BaseFiles
from meetara_build.stages.gguf.domain_files import DomainFiles
from meetara_build.stages.gguf.quantize import check_needs
from meetara_build.stages.recipes.gguf import GgufRecipe
from meetara_build.stages.types import Inputs, Metrics


def run(recipe: GgufRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Make and prove the GGUF files of one model.

    Inputs of a base: ``base``, its Hugging Face folder. Inputs of a domain: ``base``, ``base_gguf``
    (the base's F16 file), ``adapter``, ``dataset`` (texts for the proofs); where it has models of
    its own ``merged`` (its float files, proved by the merge stage), and ``imatrix`` where the
    recipe asks for it.

    A base's tokens, conversations and logits are proved against transformers. A domain's file has
    to have its base's keys, and cut its own texts as transformers does, as its base's file has to
    where the domain is an adapter alone. Its LoRA file is proved on the base's F16 file against
    base + adapter in float32, never a rounded copy; what it is worth on the base's quantized files
    is the evaluate stage's to measure.

    Raises:
        ConfigError: an unknown type, one that needs an imatrix where there is none or does not fit
            the rows of a tensor, a pattern that matches no tensor, or an unknown architecture.
        ProofError: tokens, conversations or logits differ.
        SetupError: the three parts of llama.cpp are not from one source.
    """
    check_llama()
    _check(recipe)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = DomainFiles if "adapter" in inputs else BaseFiles
    return kind(recipe, inputs, output).make()


def _check(recipe: GgufRecipe) -> None:
    for quant in recipe.quants:
        try:
            check_quant(quant)
        except ValueError as error:
            raise ConfigError(f"quants of the domain's file: {error}") from error
    check_needs(recipe.quants, recipe.imatrix, "quants of the domain's file")
