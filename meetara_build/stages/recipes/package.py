"""The gate's bounds, and what the model card and the Modelfile say."""

from typing import Literal

from meetara_build.setup.originals import Original
from meetara_build.stages.recipes.accepted import Accepted
from meetara_build.stages.recipes.safety import SafetyLists
from meetara_build.stages.types import Recipe


class PackageRecipe(Recipe):
    """``files`` is ``gguf.files``; ``beat_base_by`` is a share of the base's held-out loss; ``max_loss``
    the F16 file's, and ``max_kl`` by type, in nats per token; ``harm`` is by check which share of
    a file's answers may do harm; ``lists`` by language what answers are held to; ``worse_by`` the
    share of the ``accepted`` build's loss by which this one's may be higher."""

    domain: str
    description: str
    category: str
    languages: list[str]
    safety: Literal["strict", "standard"]
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
    harm: dict[str, float] = {}
    accepted: Accepted | None = None
    worse_by: float = 0.0
    lists: dict[str, SafetyLists] = {}
