"""How a base's importance matrix is measured."""

from meetara_build.stages.types import Recipe


class ImatrixRecipe(Recipe):
    """``tokens`` of the sample are read at most."""

    base: str
    tokens: int
    threads: int
