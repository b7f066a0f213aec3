"""On what, and with which context, a base is evaluated."""

from meetara_build.stages.recipes.answers import NOTHING_ASKED, AnswersRecipe
from meetara_build.stages.types import Recipe


class BaselineRecipe(Recipe):
    """``context`` is the longest text in tokens, None the model's own; of the records
    ``max_records``, None all."""

    domain: str
    base: str
    threads: int
    context: int | None = None
    max_records: int | None = None
    answers: AnswersRecipe = NOTHING_ASKED
