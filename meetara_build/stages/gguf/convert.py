"""llama.cpp's own converter, run inside this process: a Hugging Face folder becomes one GGUF
file."""

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Self

import conversion
import conversion.gemma
import conversion.llama
import conversion.phi
import conversion.qwen
import gguf
import torch

from meetara_build.errors import ConfigError, MeetaraError, ProofError
from meetara_build.stages.gguf.configuration import with_old_names
from meetara_build.stages.gguf.vocabulary import Vocabulary
from meetara_build.stages.recipes.gguf import GgufRecipe

SWITCHES = (("phi-3", "phi 3"), ("phi3", "phi 3"), ("modern-bert", "modern bert"))
"""Words of ``general.name`` at which llama.cpp treats a vocabulary in a way of its own
(``llama-vocab.cpp``), and what is written instead. A person may call a domain or a base as they
like; where a vocabulary needs such a word, ``proof.search_cut`` adds it."""

NAME, OWN_KEYS = "general.name", ("general.name", "meetara.domain", "meetara.recipe")
"""The key that names a file's model, and all keys that a domain's file has otherwise than its
base's."""
SWITCHED = "{} (phi-3)"
"""A name with which llama.cpp has special tokens swallow the spaces after them."""

_LOGGERS = ("hf-to-gguf", "gguf", "lora-to-gguf", "transformers.tokenization_utils_base")


@dataclass(frozen=True)
class Labels:
    """What a GGUF file says of itself: no times, no paths."""

    name: str
    domain: str
    base: str
    licence: str
    recipe: str

    @classmethod
    def of(cls, recipe: GgufRecipe) -> Self:
        """The labels that a recipe of the gguf stage gives its files."""
        name = spell_name(recipe.name)
        return cls(name, str(recipe.domain), recipe.base, recipe.licence, str(recipe.recipe))

    @classmethod
    def of_domain(cls, domain: str, base: str, licence: str, recipe: str) -> Self:
        """The same labels, from their parts."""
        return cls(spell_name(domain), domain, base, licence, recipe)

    def own(self) -> dict[str, str]:
        """The keys that a domain's file has otherwise than its base's."""
        return dict(zip(OWN_KEYS, (self.name, self.domain, self.recipe), strict=True))

    def switched_as(self, written: str, base: str) -> Self:
        """The same, its name with the word that the base's file (``written``) turned out to
        need."""
        switched = written == SWITCHED.format(spell_name(base))
        return replace(self, name=SWITCHED.format(self.name)) if switched else self

    def write(self, model: Any) -> None:
        """Replace what the converter read from a model card or guessed from a folder's name."""
        counts = model.gguf_writer.get_total_parameter_count()
        model.metadata = gguf.Metadata(
            name=self.name,
            license=self.licence,
            base_models=[{"name": self.base}],
            size_label=gguf.size_label(*counts) if counts[0] > 0 else None,
        )
        for key in ("domain", "base", "recipe"):
            model.gguf_writer.add_string(f"meetara.{key}", getattr(self, key))


def spell_name(name: str) -> str:
    """A name without the words at which llama.cpp treats a vocabulary in a way of its own."""
    return reduce(
        lambda text, word: re.sub(re.escape(word[0]), word[1], text, flags=re.IGNORECASE),
        SWITCHES,
        name,
    )


def converter_class(folder: Path) -> tuple[type[Any], dict[str, Any]]:
    """The converter's class for a folder's architecture, and the folder's configuration.

    Raises:
        ConfigError: llama.cpp knows no such architecture.
    """
    with capture_log():
        hparams = with_old_names(conversion.ModelBase.load_hparams(folder, False))
        try:
            architecture = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
            return _whole_class(conversion.get_model_class(architecture), hparams), hparams
        except (NotImplementedError, KeyError, ValueError) as error:
            raise ConfigError(
                f"the base cannot become a GGUF file: {str(error) or tell(error)}. "
                "Choose a base whose architecture llama.cpp knows."
            ) from error


def _whole_class(official: type[Any], hparams: Mapping[str, Any]) -> type[Any]:
    """Ministral's class only hands on to one of two within it, each with a writer of its own: that
    one."""
    if official.__name__ != "Mistral3Model":
        return official
    inner: type[Any] = (
        official.Mistral4Model
        if hparams.get("model_type") == "mistral4"
        else official.Ministral3Model
    )
    return inner


def convert(
    source: Path, target: Path, labels: Labels, vocabulary: Vocabulary, quant: str = "F16"
) -> None:
    """Write ``source`` as a GGUF file of type F16, BF16 or F32.

    Raises:
        ConfigError: llama.cpp knows no such architecture.
        ProofError: its converter refuses the model or the tokenizer.
    """
    official, hparams = converter_class(source)

    class Converter(official):  # type: ignore[misc, valid-type]
        model_arch = official.model_arch
        no_mtp = (
            True  # layers that predict further tokens: transformers neither runs nor saves them
        )

        def set_type(self) -> None:
            labels.write(self)
            super().set_type()

        def set_vocab(self) -> None:
            vocabulary.write(self, super().set_vocab)

        def get_vocab_base_pre(self, tokenizer: object) -> str:
            return vocabulary.pre or "default"

        def set_gguf_parameters(self) -> None:
            super().set_gguf_parameters()
            if self.model_arch == gguf.MODEL_ARCH.LLAMA and (
                window := hparams.get("sliding_window")
            ):
                # llama.cpp runs Mistral as Llama, which attends to all of a text: right only inside
                # the window.
                longest = min(window, hparams["max_position_embeddings"])
                self.gguf_writer.add_context_length(longest)

    rows = {**hparams, **hparams.get("text_config", {})}.get("vocab_size", vocabulary.size)
    if vocabulary.size > rows:
        raise ProofError(
            f"{source.name}: the tokenizer has {vocabulary.size} tokens, but the model only {rows} "
            "(vocab_size in config.json). Put the model's own tokenizer beside it, or resize the "
            "model's embeddings."
        )
    kind = gguf.LlamaFileType.ALL_F32 if quant == "F32" else gguf.LlamaFileType[f"MOSTLY_{quant}"]
    with refuse_as_proof(source), torch.inference_mode():
        model = Converter(source, kind, target, hparams=hparams)
        write(model)


def find_names(folder: Path) -> dict[str, str]:
    """The GGUF name of each weight that keeps its columns, by module:
    ``{"model.layers.0.mlp.up_proj": "blk.0.ffn_up.weight"}``.

    Raises:
        ConfigError: llama.cpp knows no such architecture.
        ProofError: its converter refuses the model.
    """
    official, hparams = converter_class(folder)

    class Named(official):  # type: ignore[misc, valid-type]
        model_arch = official.model_arch
        no_mtp = True

    with refuse_as_proof(folder):
        return _names(Named(folder, gguf.LlamaFileType.MOSTLY_F16, folder, hparams=hparams))


def write(model: Any) -> None:
    """What the converter's own ``write`` does, without its progress bar."""
    model.prepare_tensors()
    model.prepare_metadata(vocab_only=False)
    writer = model.gguf_writer
    writer.write_header_to_file(path=model.fname_out)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=False)
    writer.close()


def find_known_cut(tokenizer: object, folder: Path) -> str | None:
    """The cut that llama.cpp's converter knows a published tokenizer by, or None for any other."""
    official, _ = converter_class(folder)
    with capture_log():
        try:
            return str(official.get_vocab_base_pre(object.__new__(official), tokenizer))
        except (NotImplementedError, AttributeError):
            return None


@contextmanager
def capture_log() -> Iterator[list[str]]:
    """Keep the converter's log off the terminal; its lines are in the list."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    keep = Keep(logging.WARNING)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [keep]
    try:
        yield lines
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers


@contextmanager
def refuse_as_proof(source: Path) -> Iterator[None]:
    """The converter raises whatever went wrong; say what that was, with the last it logged."""
    with capture_log() as lines:
        try:
            yield
        except (MeetaraError, OSError):
            raise
        except Exception as error:
            said = "; ".join([tell(error), *lines[-3:]])
            raise ProofError(
                f"{source.name}: llama.cpp's converter cannot write this model: {said}. "
                "Check config.json and tokenizer.json, or choose another base."
            ) from error


def tell(error: BaseException) -> str:
    """What went wrong in another's code, and where, for an exception may say nothing itself."""
    kind, said = type(error).__name__, " ".join(str(error).split())
    if said:
        return f"{kind}: {said}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{kind} without a word, in {place.name} ({Path(place.filename).name}, line "
        f"{place.lineno}: {place.line})"
    )


def _names(model: Any) -> dict[str, str]:
    """GGUF names by module name, for weights that keep their columns."""
    names = {}
    for name in model.model_tensors:
        if name.endswith(".weight") and (
            found := model.tensor_map.get_name(name, try_suffixes=(".weight",))
        ):
            names[name.removesuffix(".weight")] = found
    return names
