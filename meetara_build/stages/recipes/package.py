"""The gate's bounds, and what the model card and the Modelfile say."""

from meetara_build.setup.originals import Original
from meetara_build.stages.types import Recipe


class PackageRecipe(Recipe):
    """``files`` is ``gguf.files``; ``beat_base_by`` is a share of the base's held-out loss; ``max_loss`` the F16 file's, and
    ``max_kl`` by type, in nats per token."""

    domain: str
    description: str
    category: str
    languages: list[str]
    safety: str
    system_prompt: str | None
    quants: list[str]
    base: str
    base_origin: str
    base_file: Original | None
    licence: str
    files: str
    beat_base_by: float
    max_loss: float | None
    max_kl: dict[str, float]
