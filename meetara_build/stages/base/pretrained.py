"""A base that others trained: safetensors only, no code from elsewhere, and every part that later stages need."""

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from meetara_build.errors import ConfigError, DataError
from meetara_build.originals import refused_as_config
from meetara_build.outside import parse_json
from meetara_build.stages.base.from_gguf import take_back
from meetara_build.stages.types import Inputs, Metrics, Recipe
from meetara_build.training.chat import encode

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja")


def fetch(recipe: Recipe, inputs: Inputs, output: Path) -> Metrics:
    """Put a base's files in place, and refuse one that cannot be trained, merged and converted."""
    name = recipe["name"]
    if "gguf" in recipe:
        taken = {"quantized": take_back(recipe, inputs, output)["quantized"]}
    else:
        taken = {}
        _copy(name, inputs["folder"] if "folder" in inputs else _download(name, recipe), output)
    config, tokenizer = _load(name, output)
    _check_chat(name, tokenizer)
    return {
        "model_type": config.model_type,
        "vocabulary": len(tokenizer),
        "parameters": _parameters(name, output),
        **taken,
    }


def _copy(name: str, origin: Path, output: Path) -> None:
    for pattern in (*PATTERNS, *TOKENIZER):
        for file in origin.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, output / file.name)
    _check_files(name, origin, output)
    _refuse_quantized(name, output)


def _download(name: str, recipe: Recipe) -> Path:
    from huggingface_hub import snapshot_download

    with refused_as_config(name, recipe["hub_id"]):
        return Path(
            snapshot_download(recipe["hub_id"], revision=recipe["revision"], allow_patterns=[*PATTERNS, *TOKENIZER])
        )


def _refuse_quantized(name: str, folder: Path) -> None:
    """Weights packed for one library's kernels can be neither merged nor converted."""
    try:
        packed = parse_json((folder / "config.json").read_bytes()).get("quantization_config")
    except (ValueError, AttributeError):
        return  # transformers says what is wrong with it
    if packed:
        method = packed.get("quant_method", "an unknown method") if isinstance(packed, dict) else packed
        raise ConfigError(
            f"base {name}: its weights are quantized ({method}), and training, merging and converting need floats; use the model "
            "that it was made from (the same name without GPTQ, AWQ, bnb…)"
        )


def _check_files(name: str, origin: Path, output: Path) -> None:
    where = f"base {name}: {origin}"
    if not (output / "config.json").exists():
        raise ConfigError(f"{where}: no config.json; point folder: at a model in Hugging Face form")
    if not list(output.glob("*.safetensors")):
        raise ConfigError(
            f"{where}: no .safetensors file; convert the weights to safetensors (pickled .bin files are not loaded)"
        )
    if not (output / "tokenizer.json").exists() and not (output / "tokenizer.model").exists():
        raise ConfigError(
            f"{where}: no tokenizer (tokenizer.json or tokenizer.model); save the model's tokenizer beside it"
        )


def _load(name: str, folder: Path) -> tuple[Any, Any]:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file ends in whatever the parser runs into
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"base {name}: transformers cannot load it ({reason}); use a base of a supported architecture"
        ) from None
    extra = len(tokenizer) - config.get_text_config().vocab_size
    if extra > 0:
        raise ConfigError(
            f"base {name}: its tokenizer knows {extra} more tokens than the model; take both from the same place, or enlarge the "
            "model's embeddings"
        )
    return config, tokenizer


def _check_chat(name: str, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"base {name}: its tokenizer has no chat template; use the instruct version, or put chat_template.jinja into its folder"
        )
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]
    try:
        answer = encode(tokenizer, turns).completion_tokens
    except DataError as error:
        raise ConfigError(
            f"base {name}: its chat template cannot be used ({error}); mend chat_template.jinja"
        ) from None
    if not answer:
        raise ConfigError(f"base {name}: its chat template leaves out the assistant's answer; mend chat_template.jinja")


def _parameters(name: str, folder: Path) -> int:
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  (no mapping)
                    size = 1
                    for length in tensors.get_slice(key).get_shape():
                        size *= length
                    total += size
        except SafetensorError as error:
            raise ConfigError(f"base {name}: {file.name} is damaged ({error}); copy or fetch it again") from None
    for shard in _shards(name, folder):
        if not (folder / shard).exists():
            raise ConfigError(f"base {name}: {shard} is missing; copy or fetch the model again")
    return total


def _shards(name: str, folder: Path) -> list[str]:
    """The files that a model in several parts must have."""
    index = folder / "model.safetensors.index.json"
    try:
        return sorted(set(parse_json(index.read_bytes())["weight_map"].values())) if index.exists() else []
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"base {name}: {index.name} is damaged; copy or fetch the model again") from None
