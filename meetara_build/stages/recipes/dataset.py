"""What a domain's data set is made of."""

from meetara_build.stages.recipes.preparation import Preparation


class DatasetRecipe(Preparation):
    """Sources, cleaning, split, and limits."""

    min_tokens: int
    max_tokens: int
    max_drop_share: float
    drop: list[str]
