"""How exact a merge must be."""

from meetara_build.stages.types import Recipe


class MergeRecipe(Recipe):
    """``bound`` is the largest difference allowed, as a share of the largest logit."""

    domain: str
    threads: int
    bound: float
