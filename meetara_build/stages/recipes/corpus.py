"""What a base's own text is made of."""

from meetara_build.stages.recipes.preparation import Preparation
from meetara_build.stages.types import Recipe


class CorpusRecipe(Recipe):
    """Which share of whose training records the embedded base may see."""

    share: float
    domains: dict[str, Preparation]
