"""Which records stand for all text that a base's files will meet."""

from meetara_build.stages.recipes.preparation import Preparation
from meetara_build.stages.types import Recipe


class SampleRecipe(Recipe):
    """How many training records of each of which domains."""

    records: int
    domains: dict[str, Preparation]
