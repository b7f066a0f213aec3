"""Loading a base from its folder: local files, safetensors, no code from it."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from meetara_build.errors import SetupError, TrainingError
from meetara_build.outside import first_line
from meetara_build.training.precision import has_bfloat16

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_model(folder: Path, dtype: torch.dtype, device: str = "cpu") -> PreTrainedModel:
    """The causal language model in ``folder``, its weights as ``dtype``.

    Raises:
        TrainingError: the folder holds no such model in safetensors form, or one that needs code of
            its own.
        SetupError: the device is a GPU, and torch sees none; or it has no bfloat16 arithmetic, and
            ``dtype`` is that.
    """
    check_device(dtype, device)
    moved: Any = read_model(folder, dtype)  # transformers' annotation of .to() takes no device
    loaded: PreTrainedModel = moved.to(device)
    return loaded


def check_device(dtype: torch.dtype, device: str) -> None:
    """Refuse a device that is not there, or does not compute in ``dtype``.

    Raises:
        SetupError: it says what to choose instead.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SetupError(
            "the chosen hardware has a GPU, but torch sees none here: choose `hardware: cpu` in "
            "conf/build.yaml or `--profile local`, or install a build of torch that fits this "
            "machine's GPU"
        )
    if dtype == torch.bfloat16 and not has_bfloat16(device):
        raise SetupError(
            f"precision: bfloat16 on a {'GPU' if device == 'cuda' else 'processor'} without "
            "bfloat16 arithmetic is emulated, many times slower than float32: set `precision: "
            "float32` in this machine's file below conf/hardware/; a base that is published in "
            "bfloat16 is then held in float32, and loses nothing"
        )


def read_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The same in this machine's own memory, whether or not it computes in ``dtype``.

    Raises:
        TrainingError: as ``load_model``.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as fault:
        raise TrainingError(
            f"{folder}: no base that can be loaded ({first_line(fault)}): give a folder with "
            "config.json and model.safetensors of an architecture that transformers knows"
        ) from fault
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder``.

    Raises:
        TrainingError: the folder has no tokenizer, or the tokenizer no chat template.
    """
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise TrainingError(
            f"{folder}: the base has no tokenizer: put its tokenizer.json beside config.json"
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as fault:
        raise TrainingError(
            f"{folder}: the base's tokenizer cannot be loaded ({first_line(fault)}): copy its "
            "tokenizer files again"
        ) from fault
    if not tokenizer.chat_template:
        raise TrainingError(
            f"{folder}: the base's tokenizer has no chat template: use the base's instruct "
            "version, or put a chat_template.jinja beside tokenizer.json"
        )
    return tokenizer


def position_limit(model: PreTrainedModel) -> int | None:
    """How many tokens of one text the model has positions for; None if its configuration names no
    limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
