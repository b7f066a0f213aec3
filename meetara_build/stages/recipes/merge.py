"""How a merged model is written, and how exact it must be."""

from meetara_build.stages.types import Recipe


class MergeRecipe(Recipe):
    """What the file says of itself is the domain's own.

    Attributes:
        recipe: the digest of the recipes of the stages before, which the file names.
        bound: largest difference between logits of merged weights and of base + adapter in float32,
            as a share of the largest logit.
        logits_bound: largest distance of the file's logits, run by llama.cpp, from those of base +
            adapter, as a share of their spread.
        floats: the types besides F16 that are no quantization, which are written here too.
        folder: whether the model is kept as a Hugging Face folder too.
    """

    domain: str
    base: str
    licence: str
    recipe: str
    threads: int
    bound: float
    logits_bound: float
    floats: list[str] = []
    folder: bool = False
