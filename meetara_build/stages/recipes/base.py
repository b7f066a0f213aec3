"""How a base is made here, or where it comes from."""

from meetara_build.setup.originals import Original
from meetara_build.stages.types import Recipe


class TokenizerShape(Recipe):
    """The tokenizer of a base made here."""

    vocab_size: int


class ModelShape(Recipe):
    """The sizes of a Llama made here."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    positions: int


class Pretraining(Recipe):
    """How it is trained from nothing."""

    epochs: int
    batch_tokens: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float


class BaseRecipe(Recipe):
    """One made here has a ``model`` and all that goes with it; one that is taken back a ``gguf``
    file; one of a hub a ``hub_id``; one of a folder none of them."""

    name: str
    seed: int | None = None
    chat_template: str | None = None
    tokenizer: TokenizerShape | None = None
    model: ModelShape | None = None
    pretraining: Pretraining | None = None
    threads: int | None = None
    gguf: Original | None = None
    hub_id: str | None = None
    revision: str | None = None
