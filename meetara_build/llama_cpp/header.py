"""The header of a GGUF file, read by ggml without its weights: texts, and how each tensor is
stored.

ggml's own functions for this are reached through a private name, tried with llama-cpp-python
0.3.36: ``gguf.GGUFReader`` takes 2.3 s of a core for a vocabulary of 49,000 tokens, these 0.01 s.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llama_cpp import llama_cpp as ll

from meetara_build.errors import ArtifactError

FLOATS = ("f32", "bf16", "f16")
"""Types that are no quantization."""


class Tensor(NamedTuple):
    """How a GGUF file stores a tensor: its type as ggml writes it (``q4_K``), and its bytes."""

    type: str
    size: int


class Header(NamedTuple):
    """What a GGUF file says before its weights: texts by key, tensors by name, and how many bytes
    the whole file has to have."""

    texts: dict[str, str]
    tensors: dict[str, Tensor]
    size: int

    @property
    def main_type(self) -> str:
        """The type that most of its bytes are stored in, as ggml writes it."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
        return max(sizes, key=lambda kind: sizes[kind], default="f32")

    @property
    def quantized(self) -> str | None:
        """That type where it is no plain float, as people write it (``Q4_1``)."""
        return None if self.main_type in FLOATS else self.main_type.upper()


def header(path: Path, keys: Sequence[str] = ()) -> Header:
    """The header of a GGUF file, with those of ``keys`` that it has a text for, or a truth, as
    ``true`` or ``false``.

    Raises:
        ArtifactError: the file is not a GGUF.
    """
    lib = _gguf_functions()
    file = ctypes.c_void_p(
        lib.gguf_init_from_file(str(path).encode(), _GgufParams(no_alloc=True, ctx=None))
    )
    if not file:
        raise ArtifactError(
            f"{path.name}: not a GGUF file, or one cut short. Build it again, or fetch it again."
        )
    try:
        found: dict[str, Tensor] = {}
        end = start = lib.gguf_get_data_offset(file)
        for i in map(ctypes.c_int64, range(lib.gguf_get_n_tensors(file))):
            size = lib.gguf_get_tensor_size(file, i)
            kind = lib.ggml_type_name(lib.gguf_get_tensor_type(file, i)).decode()
            found[lib.gguf_get_tensor_name(file, i).decode()] = Tensor(kind, size)
            end = max(end, start + lib.gguf_get_tensor_offset(file, i) + size)
        texts = {}
        for key in keys:
            at = ctypes.c_int64(lib.gguf_find_key(file, key.encode()))
            kind = lib.gguf_get_kv_type(file, at) if at.value >= 0 else None
            if kind == _TEXT:
                texts[key] = lib.gguf_get_val_str(file, at).decode("utf-8", "replace")
            elif kind == _TRUTH:
                texts[key] = str(bool(lib.gguf_get_val_bool(file, at))).lower()
        return Header(texts, found, end)
    finally:
        lib.gguf_free(file)


def tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a GGUF file by its name.

    Raises:
        ArtifactError: the file is not a GGUF.
    """
    return header(path).tensors


def tensor_types(path: Path) -> dict[str, str]:
    """Name and storage type of every tensor of a GGUF file.

    Raises:
        ArtifactError: the file is not a GGUF.
    """
    return {name: tensor.type for name, tensor in tensors(path).items()}


_TRUTH, _TEXT = 7, 8
"""``GGUF_TYPE_BOOL`` and ``GGUF_TYPE_STRING`` of ggml's gguf.h."""


@cache
def _gguf_functions() -> Any:
    """The part of ggml's gguf.h that reads headers, which llama-cpp-python does not declare."""
    lib = ll._lib
    kinds = {
        ctypes.c_char_p: ("gguf_get_tensor_name", "ggml_type_name", "gguf_get_val_str"),
        ctypes.c_void_p: ("gguf_init_from_file",),
        ctypes.c_int64: ("gguf_get_n_tensors", "gguf_find_key"),
        ctypes.c_bool: ("gguf_get_val_bool",),
        ctypes.c_size_t: ("gguf_get_tensor_size", "gguf_get_tensor_offset", "gguf_get_data_offset"),
    }
    for kind, names in kinds.items():
        for name in names:
            getattr(lib, name).restype = kind
    return lib


class _GgufParams(ctypes.Structure):
    """``gguf_init_params`` of ggml's gguf.h."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
