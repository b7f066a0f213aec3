"""On what, and with which context, files are evaluated; the bounds are the package's."""

from meetara_build.stages.recipes.answers import NOTHING_ASKED, AnswersRecipe
from meetara_build.stages.types import Recipe


class EvaluateRecipe(Recipe):
    """``context`` is the longest text in tokens, None the model's own; of the records
    ``max_records``, None all; ``kl_tokens`` of their tokens are compared with F16, None all.
    ``on_base`` where the domain is its adapter alone, used on its base's files."""

    domain: str
    base: str
    quants: list[str]
    threads: int
    context: int | None = None
    max_records: int | None = None
    kl_tokens: int | None = None
    on_base: bool = False
    answers: AnswersRecipe = NOTHING_ASKED
