"""What files are asked, and how long they may answer."""

from meetara_build.stages.types import Recipe


class AnswersRecipe(Recipe):
    """``prompts`` of the held-out ones, None all; an answer has up to ``tokens``, and of each choice
    the first ``choice_tokens`` are weighed."""

    prompts: int | None
    tokens: int
    choice_tokens: int


NOTHING_ASKED = AnswersRecipe(prompts=0, tokens=1, choice_tokens=1)
