"""A base taken back from a GGUF file: float weights, configuration, tokenizer and template, by
transformers.

What stands in such a file may have been quantized: the weights are then those that llama.cpp works
out from it, and no others. That they are is proved by the base's own gguf stage.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from meetara_build.errors import ArtifactError, ConfigError
from meetara_build.llama_cpp.header import Header, header
from meetara_build.outside import first_line
from meetara_build.setup.originals import Original, find_original
from meetara_build.stages.types import Inputs

ORIGIN = "origin.json"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""What plain floats are kept in: what they are."""

ARCHITECTURE, KIND, TEMPLATE, CUT = (
    "general.architecture",
    "general.type",
    "tokenizer.chat_template",
    "tokenizer.ggml.pre",
)
VOCABULARY, PREFIX = "tokenizer.ggml.model", "tokenizer.ggml.add_space_prefix"
PROJECTORS = ("clip", "mmproj")
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Names of the cut that is GPT-2's after each digit was cut off (``llama-vocab.cpp``,
``LLAMA_VOCAB_PRE_TYPE_SMOLLM``)."""


def take_back(name: str, origin: Original, inputs: Inputs, output: Path) -> dict[str, str | None]:
    """Write the base ``name`` as a Hugging Face folder with ``origin.json``; what the latter says.

    The matrices of a quantized file are kept in float16, in which the base's own F16 file then
    holds them exactly; where one does not fit into it, in float32.

    Raises:
        ConfigError: the file is not a whole model, has no chat template, or is of an architecture
            that transformers does not know.
        SetupError: the package that it is a file of is not fetched.
    """
    path = find_original(name, origin, inputs)
    stored = _check(name, path)
    model, tokenizer = _load(name, path, stored)
    dtype = DTYPES.get(stored.main_type, torch.float16)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    if not all(weight.to(dtype).isfinite().all() for weight in matrices):
        dtype = torch.float32
    for weight in matrices:  # norms and biases stay in float32, as GGUF files hold them
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(output, max_shard_size="100GB")
    tokenizer.save_pretrained(output)
    taken = {"file": path.name, "quantized": stored.quantized}
    (output / ORIGIN).write_text(json.dumps(taken, indent=1) + "\n", encoding="utf-8")
    return taken


def _check(name: str, path: Path) -> Header:
    where = f"base {name}: {path.name}"
    try:
        stored = header(path, (ARCHITECTURE, KIND, TEMPLATE, CUT, VOCABULARY, PREFIX))
    except ArtifactError:
        raise ConfigError(
            f"{where}: not a GGUF file, or one cut short; fetch or copy it again"
        ) from None
    if stored.texts.get(KIND) == "adapter":
        raise ConfigError(
            f"{where}: is a LoRA adapter, not a model; name the model that it was trained on"
        )
    if PROJECTORS[0] == stored.texts.get(ARCHITECTURE) or stored.texts.get(KIND) in PROJECTORS:
        raise ConfigError(
            f"{where}: is the image or sound part of a multimodal model; name the file of its "
            "language model"
        )
    if (size := path.stat().st_size) < stored.size:
        raise ConfigError(
            f"{where}: is cut short: {size} bytes of {stored.size}; fetch or copy it again"
        )
    if PART.search(path.name):
        raise ConfigError(
            f"{where}: is one part of several; put them together with `llama-gguf-split --merge`, "
            "and name the whole"
        )
    if not stored.texts.get(TEMPLATE):
        raise ConfigError(
            f"{where}: has no chat template; use a file of the model's instruct version"
        )
    return stored


def _load(name: str, path: Path, stored: Header) -> tuple[Any, Any]:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as alone:
        # What lies beside the file, an adapter or another configuration, is no part of it.
        (Path(alone) / "model.gguf").symlink_to(path.resolve())
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
            model: Any = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file="model.gguf", dtype=torch.float32
            )
        except Exception as error:  # whatever its reader of this architecture runs into
            reason = first_line(error)
            raise ConfigError(
                f"base {name}: {path.name}: transformers cannot take back a GGUF file of the "
                f"architecture '{stored.texts.get(ARCHITECTURE, 'none')}' ({reason}); use the "
                "model's own folder or hub_id, or another base"
            ) from None
    model.hf_quantizer = None  # the weights are floats now: it is saved as any other model
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = name
    _cut_as_llama_cpp_does(tokenizer, stored.texts)
    return model, tokenizer


def _cut_as_llama_cpp_does(tokenizer: Any, texts: Mapping[str, str]) -> None:
    """Mend where transformers 5.23 cuts text otherwise than llama.cpp, which is what the file was
    made for.

    Byte-level: it reads the names of most cuts, but not of those that cut off single digits first.
    SentencePiece: it leaves out the space before a text that begins with one; llama.cpp always adds
    it, as Llama 2's own tokenizer did. Gemma's files have a reader of their own. Whatever else
    differs, the base's own proof finds.
    """
    if texts.get(CUT) in SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, whole])
    elif texts.get(VOCABULARY) == "llama" and not texts.get(ARCHITECTURE, "").startswith("gemma"):
        prefix = [normalizers.Prepend("▁")] if texts.get(PREFIX, "true") == "true" else []
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
            [*prefix, normalizers.Replace(" ", "▁")]
        )
        tokenizer.backend_tokenizer.pre_tokenizer = None


def read_tokenizer(name: str, path: Path) -> Any:
    """The tokenizer of a GGUF file alone, for who wants to count tokens before the base is taken
    back.

    Raises:
        ConfigError: the file is not a whole model, has no chat template, or transformers cannot
            read its tokenizer.
    """
    stored = _check(name, path)
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / "model.gguf").symlink_to(path.resolve())
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
        except Exception as error:  # whatever its reader of this architecture runs into
            reason = first_line(error)
            raise ConfigError(
                f"base {name}: {path.name}: transformers cannot read its tokenizer ({reason}); use "
                "another base"
            ) from None
    _cut_as_llama_cpp_does(tokenizer, stored.texts)
    return tokenizer
