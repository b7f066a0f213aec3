"""The model that adapters are trained on: made here from the embedded data, copied from a folder or
the hub, or taken back from a GGUF file."""

from pathlib import Path

from meetara_build.stages.base.embedded import make
from meetara_build.stages.base.pretrained import fetch
from meetara_build.stages.recipes.base import BaseRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.settings import Observer


def run(
    recipe: BaseRecipe, inputs: Inputs, output: Path, observe: Observer | None = None
) -> Metrics:
    """Write a Hugging Face folder: config, safetensors, tokenizer and chat template.

    One with a ``model`` is pretrained on ``inputs["corpus"]``; one of a folder is
    ``inputs["folder"]``. ``observe`` is called after each step of pretraining.

    Raises:
        ConfigError: the base lacks a part that later stages need, or cannot be fetched.
        SetupError: the package that the base is a file of is not fetched.
        TrainingError: pretraining failed.
    """
    return (
        make(recipe, inputs["corpus"], output, observe)
        if recipe.model
        else fetch(recipe, inputs, output)
    )
