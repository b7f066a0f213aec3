"""Which GGUF files are made, how, and what they say of themselves."""

from meetara_build.setup.originals import Original
from meetara_build.stages.types import Recipe


class GgufRecipe(Recipe):
    """The files of a domain, or a base's own F16 file, which every evaluation compares with.

    Attributes:
        name: what the files' names begin with.
        recipe: the digest of the recipes of the stages before, which the files name.
        imatrix: whether quantizing weighs by the base's importance matrix.
        files: models of the domain's own (``merged``), its adapter alone (``lora``), or ``both``.
        tensor_types: by a regular expression over tensor names, the type that they get in every
            quantized file.
        logits_bound: largest distance from the logits that transformers gives, as a share of their
            spread.
        original: the file that a base was taken back from.
    """

    name: str
    base: str
    licence: str
    threads: int
    logits_bound: float
    domain: str | None = None
    recipe: str | None = None
    quants: list[str] = ["F16"]
    imatrix: bool = False
    files: str = "merged"
    tensor_types: dict[str, str] = {}
    system_prompt: str | None = None
    original: Original | None = None
