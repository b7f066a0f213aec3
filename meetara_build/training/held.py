"""A base made ready for training once, and inherited by every job that is forked from the process
that holds it.

To load a base, to lay its matrices out and to show that the copies may stand for the weights takes
2 of the 17 CPU-seconds of a small domain's training on the smallest real base in bfloat16, and 0.6 of
the 1.5 GB that it holds for itself. None of it depends on the domain. A forked process shares these
pages with all others until it writes to them, and nothing writes to what is frozen.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from meetara_build.training.chat import Encoded
from meetara_build.training.heap import give_back_memory
from meetara_build.training.kernels.fuse import fuse
from meetara_build.training.kernels.packed import PackedModel
from meetara_build.training.model import load_model, load_tokenizer
from meetara_build.training.targets import output_layer

MANIFEST = "manifest.json"
"""Beside a base's files, with the digest of each."""
PROBE_TOKENS = 64
"""Tokens of the text on which the base shows that it computes with its copies alone."""


class _Held(NamedTuple):
    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


_held: list[_Held] = []
"""The one base that this process holds, if it holds one."""


def hold_base(folder: Path, dtype: torch.dtype) -> None:
    """Load a base and lay its frozen matrices out, for the processes that are forked from this one.

    Nothing here starts a thread, so that a fork is safe: no backward pass, and one thread.

    Raises:
        TrainingError: the folder holds no base that can be used.
    """
    torch.set_num_threads(1)
    tokenizer, model = load_tokenizer(folder), load_model(folder, dtype)
    model.requires_grad_(False)
    size = model.config.get_text_config().vocab_size
    text = list(range(0, size, max(1, size // PROBE_TOKENS)))
    probe = Encoded(text, [True] * len(text))
    packed = PackedModel(model, [probe], fuse(model, output_layer(model)))
    packed.rearrange_head()
    packed.drop_weights()
    name = _name_base(folder)
    packed.hold(name)
    packed.release()
    give_back_memory()
    _held[:] = [_Held(name, model, tokenizer)]


def open_base(
    folder: Path, dtype: torch.dtype, device: str, *, whole: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base in a folder and its tokenizer: what this process inherited where it is the same, or
    loaded; ``whole`` if the values of its weights are read, which a held one no longer has.

    Raises:
        TrainingError: the folder holds no base that can be used.
        SetupError: this machine cannot compute so, see ``load_model``.
    """
    if _held and not whole and device == "cpu":
        held = _held[0]
        if held.name == _name_base(folder) and held.model.dtype == dtype:
            return held.model, held.tokenizer
    return load_model(folder, dtype, device), load_tokenizer(folder)


def _name_base(folder: Path) -> str:
    manifest = folder / MANIFEST
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else str(folder)
