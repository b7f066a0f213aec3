"""``conf/base/NAME.yaml``: where a model comes from that adapters are trained on."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from meetara_build.config.schema.checking import Shape
from meetara_build.config.schema.values import (
    Commit,
    Digest,
    Name,
    Pinned,
    Positive,
    QuantName,
    Share,
)
from meetara_build.llama_cpp.quants import CONVERTED, check_quants


class TokenizerShape(Shape):
    """The tokenizer of a base made here."""

    vocab_size: Annotated[int, Field(ge=512, le=65536)]
    """Tokens of its vocabulary."""


class ModelShape(Shape):
    """A Llama, as ``transformers.LlamaConfig`` names its sizes."""

    hidden_size: Positive
    """Width of the model."""
    intermediate_size: Positive
    """Width of the feed-forward layers."""
    layers: Positive
    """How many blocks."""
    heads: Positive
    """Attention heads."""
    kv_heads: Positive
    """Heads that share keys and values."""
    positions: Positive
    """The longest text, in tokens."""


class Pretraining(Shape):
    """How the embedded base is trained from nothing, and on which share of the training records."""

    share: Share
    """Of the training records, how many it learns from."""
    epochs: Positive
    """Times through them."""
    batch_tokens: Positive
    """Tokens in one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """The highest rate."""
    warmup_share: Share
    """Of all steps, how many the rate rises for."""
    weight_decay: Annotated[float, Field(ge=0)]
    """AdamW's."""
    clip_norm: Annotated[float, Field(gt=0)]
    """Longest gradient."""
    threads: Positive
    """Of the job: another number gives other bytes."""
    domains: Annotated[list[Name], Field(min_length=1)]
    """Whose records it learns from."""


class GgufFile(Shape):
    """A GGUF file that a base is taken back from: a path, a file of a Python package, or a file of
    a hub repository."""

    path: str | None = None
    """A file, seen from the project."""
    package: Pinned | None = None
    """``NAME==VERSION``; `meetara-build setup` fetches it, and keeps the file alone."""
    hub_id: str | None = None
    """The hub's repository that holds it."""
    revision: Commit | None = None
    """That repository's commit."""
    file: str | None = None
    """Where the file lies in its package or repository."""
    sha256: Digest | None = None
    """The file's digest."""

    @model_validator(mode="after")
    def _one_place(self) -> "GgufFile":
        needs = {"path": (), "package": ("file", "sha256"), "hub_id": ("file", "revision")}
        given = [place for place in needs if getattr(self, place) is not None]
        if len(given) != 1:
            raise ValueError("a GGUF file has a path, a package or a hub_id, and only one of them")
        wanted = needs[given[0]]
        if missing := [key for key in wanted if getattr(self, key) is None]:
            raise ValueError(
                f"a GGUF file of a {given[0].removesuffix('_id')} has a {' and a '.join(missing)} "
                "too"
            )
        beyond = [
            key
            for key in ("file", "sha256", "revision")
            if key not in wanted and getattr(self, key) is not None
        ]
        if beyond:
            raise ValueError(
                f"{' and '.join(beyond)} mean nothing for a GGUF file with a {given[0]}; remove "
                "them"
            )
        return self


class Base(Shape):
    """``conf/base/NAME.yaml``: a model to adapt, made here (``tokenizer``, ``model``,
    ``pretraining``) or loaded."""

    description: str
    """For people."""
    licence: str
    """As the hub names it; goes into model cards and GGUF files."""
    chat_template: str
    """The form of its conversations, such as `chatml`."""
    parameters: Positive
    """How many weights, for estimates."""
    quants: Annotated[list[QuantName], Field(min_length=1)] = ["Q8_0", "Q4_K_M"]
    """The types of its own files that adapters alone are used on (`gguf.files: lora`)."""
    hub_id: str | None = None
    """A repository of a hub."""
    revision: Commit | None = None
    """The commit of the hub's repository: the same name may hold another model tomorrow."""
    folder: str | None = None
    """A folder that holds the model."""
    gguf: GgufFile | None = None
    """A GGUF file; a text is its path."""
    tokenizer: TokenizerShape | None = None
    """Of a base made here."""
    model: ModelShape | None = None
    """Of a base made here."""
    pretraining: Pretraining | None = None
    """Of a base made here."""

    @property
    def made_here(self) -> bool:
        """Whether the pipeline makes this base from the embedded data."""
        return self.model is not None

    @field_validator("quants")
    @classmethod
    def _check_quants(cls, quants: list[str]) -> list[str]:
        check_quants(quants)
        if floats := [quant for quant in quants if quant in CONVERTED]:
            raise ValueError(
                f"a base's quants are quantized types, which {floats[0]} is not; it has its F16 "
                "file in any case"
            )
        return quants

    @field_validator("gguf", mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_origin(self) -> "Base":
        parts = (self.tokenizer, self.model, self.pretraining)
        if any(part is None for part in parts) and any(part is not None for part in parts):
            raise ValueError("a base made here has all of tokenizer, model and pretraining")
        others = self.made_here or self.hub_id is not None or self.folder is not None
        if others == (self.gguf is not None):
            raise ValueError(
                "a base has a hub_id, a folder, a gguf file, or is made here (tokenizer, model, "
                "pretraining); gguf goes with no other"
            )
        if self.hub_id is not None and self.folder is None and self.revision is None:
            raise ValueError(
                "a base of a hub is pinned to a commit: add `revision:` with its 40 hex digits, "
                "as the hub lists them under Files"
            )
        return self
