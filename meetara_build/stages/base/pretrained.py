"""A base that others trained: safetensors only, no code from elsewhere, and every part that later
stages need."""

import shutil
from math import prod
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from meetara_build.errors import ConfigError, DataError
from meetara_build.outside import first_line, parse_json
from meetara_build.setup.originals import refuse_as_config
from meetara_build.stages.base.from_gguf import take_back
from meetara_build.stages.base.surplus import TURNS, leave_out_surplus
from meetara_build.stages.recipes.base import BaseRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.chat import encode

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = (INDEX, "config.json", "generation_config.json")
CONSOLIDATED = "consolidated*"
"""The same weights once more, as Mistral's own programs read them."""
QUANTIZED = ("quantization_config", "compression_config")
FLOATS = ("F64", "F32", "F16", "BF16")
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
)
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Any of these is a whole tokenizer."""


def fetch(recipe: BaseRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Put a base's files in place, and refuse one that cannot be trained, merged and converted."""
    name = recipe.name
    if recipe.gguf:
        taken = {"quantized": take_back(name, recipe.gguf, inputs, output)["quantized"]}
    else:
        taken = {}
        _copy(name, inputs["folder"] if "folder" in inputs else _download(name, recipe), output)
    config, tokenizer = _load(name, output)
    _check_chat(name, tokenizer)
    tokenizer = leave_out_surplus(name, output, tokenizer, config.get_text_config().vocab_size)
    return {
        "model_type": config.model_type,
        "vocabulary": len(tokenizer),
        "parameters": _parameters(name, output),
        **taken,
    }


def _copy(name: str, origin: Path, output: Path) -> None:
    files = {file for pattern in (*CONFIG, *TOKENIZER) for file in origin.glob(pattern)}
    files |= {origin / weights for weights in _weights(name, origin)}
    for file in files:
        if file.is_file():
            shutil.copyfile(file, output / file.name)
    _check_files(name, origin, output)
    _refuse_quantized(name, output)


def _download(name: str, recipe: BaseRecipe) -> Path:
    from huggingface_hub import snapshot_download

    assert recipe.hub_id is not None
    with refuse_as_config(name, recipe.hub_id):
        return Path(
            snapshot_download(
                recipe.hub_id,
                revision=recipe.revision,
                allow_patterns=["*.safetensors", *CONFIG, *TOKENIZER],
                ignore_patterns=[CONSOLIDATED],
            )
        )


def _refuse_quantized(name: str, folder: Path) -> None:
    """Weights packed for one library's kernels can be neither merged nor converted."""
    try:
        config = parse_json((folder / "config.json").read_bytes())
        parts = [config, config.get("text_config") or {}]
        packed = next((part[key] for part in parts for key in QUANTIZED if part.get(key)), None)
    except (ValueError, AttributeError):
        return  # transformers says what is wrong with it
    if packed:
        method = (
            packed.get("quant_method", "an unknown method") if isinstance(packed, dict) else packed
        )
        raise _make_quantized_error(name, method)


def _make_quantized_error(name: str, method: object) -> ConfigError:
    return ConfigError(
        f"base {name}: its weights are quantized ({method}), and training, merging and converting "
        "need floats; use the model that it was made from (the same name without GPTQ, AWQ, bnb…)"
    )


def _check_files(name: str, origin: Path, output: Path) -> None:
    where = f"base {name}: {origin}"
    if not (output / "config.json").exists():
        raise ConfigError(f"{where}: no config.json; point folder: at a model in Hugging Face form")
    if not _weights(name, origin):
        raise ConfigError(
            f"{where}: no .safetensors file; convert the weights to safetensors (pickled .bin "
            "files are not loaded)"
        )
    if not any(all((output / file).exists() for file in files) for files in TOKENIZER_FILES):
        raise ConfigError(
            f"{where}: no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with "
            "merges.txt); save the model's tokenizer beside it"
        )


def _load(name: str, folder: Path) -> tuple[Any, Any]:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file ends in whatever the parser runs into
        reason = first_line(error)
        raise ConfigError(
            f"base {name}: transformers cannot load it ({reason}); use a base of a supported "
            "architecture"
        ) from None
    if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model")):
        # vocab.json and merges.txt alone: later stages and llama.cpp read tokenizer.json.
        tokenizer.save_pretrained(folder)
    return config, tokenizer


def _check_chat(name: str, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"base {name}: its tokenizer has no chat template; use the instruct version, or put "
            "chat_template.jinja into its folder"
        )
    try:
        answer = encode(tokenizer, TURNS).completion_tokens
    except DataError as error:
        raise ConfigError(
            f"base {name}: its chat template cannot be used ({error}); mend chat_template.jinja"
        ) from None
    if not answer:
        raise ConfigError(
            f"base {name}: its chat template leaves out the assistant's answer; mend "
            "chat_template.jinja"
        )


def _parameters(name: str, folder: Path) -> int:
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  (no mapping)
                    part = tensors.get_slice(key)
                    if key.endswith("weight") and part.get_dtype() not in FLOATS:
                        raise _make_quantized_error(name, f"{key} is stored as {part.get_dtype()}")
                    total += prod(part.get_shape())
        except SafetensorError as error:
            raise ConfigError(
                f"base {name}: {file.name} is damaged ({error}); copy or fetch it again"
            ) from None
    for shard in _weights(name, folder):
        if not (folder / shard).exists():
            raise ConfigError(f"base {name}: {shard} is missing; copy or fetch the model again")
    return total


def _weights(name: str, folder: Path) -> list[str]:
    """The files that hold the model: what else lies beside them, older weights or an adapter, is no
    part of it."""
    index = folder / INDEX
    if not index.exists():
        return [WHOLE] if (folder / WHOLE).exists() else []
    try:
        named = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        named = [""]
    if not all(isinstance(file, str) and file and Path(file).name == file for file in named):
        raise ConfigError(f"base {name}: {INDEX} is damaged; copy or fetch the model again")
    return named
