"""Quantized files by llama.cpp itself."""

import ctypes
import errno
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as ll

from meetara_build.errors import ConfigError, ProofError
from meetara_build.llama import last_words, listening, tensor_types

Imatrix = Mapping[str, npt.NDArray[np.float32]]
"""Mean squared input of each column of a weight, by GGUF tensor name."""

NEEDS_IMATRIX = frozenset(
    {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"},
)
"""Types that llama.cpp makes only with an importance matrix."""

_FALLBACK = re.compile(
    r"(\S+)\s+- ncols\s+(\d+) not divisible by\s+\d+ \(required for type\s+(\S+)\).*?->.*?back to\s+(\S+)"
)


def check_needs(quants: list[str], imatrix: bool) -> None:
    """Refuse types that need an importance matrix where there is none.

    Raises:
        ConfigError: naming the types.
    """
    if (needing := sorted(NEEDS_IMATRIX.intersection(quants))) and not imatrix:
        raise ConfigError(
            f"gguf.quants: {', '.join(needing)} can be made only with an importance matrix: "
            "set gguf.imatrix.enabled to true, or choose other types"
        )


def quantize(source: Path, target: Path, quant: str, imatrix: Imatrix, threads: int) -> dict[str, Any]:
    """Quantize an F16 file.

    Returns:
        ``types``: how many tensors got which storage type; ``fallbacks``: tensors whose rows do not fit the type asked
        for (K-quants want multiples of 256), as ``name: columns, wanted -> given``.

    Raises:
        OSError: the disk is full.
        ProofError: llama.cpp refuses, for instance an IQ type for a tensor without importance data.
    """
    params = ll.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = int(gguf.LlamaFileType[f"MOSTLY_{quant}"])
    data = _imatrix_data(imatrix)
    if data is not None:
        params.imatrix = data
    with listening() as lines:
        code = ll.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        target.unlink(missing_ok=True)
        if shutil.disk_usage(target.parent).free < source.stat().st_size:
            raise OSError(errno.ENOSPC, "no space left for the quantized file", str(target))
        raise ProofError(f"{target.name}: llama.cpp cannot quantize to {quant}: {last_words()}. Choose another type.")
    fallbacks = [
        f"{name}: {columns} columns, {wanted} -> {given}"
        for name, columns, wanted, given in _FALLBACK.findall(" ".join(lines))
    ]
    return {"types": counted_types(target), "fallbacks": sorted(fallbacks)}


def counted_types(path: Path) -> dict[str, int]:
    """How many tensors of a GGUF file are stored in which type."""
    return dict(sorted(Counter(tensor_types(path).values()).items()))


def _imatrix_data(imatrix: Imatrix) -> Any:
    """The array that llama.h wants, ended by an entry without a name."""
    if not imatrix:
        return None
    array = (ll.llama_model_imatrix_data * (len(imatrix) + 1))()
    for slot, (name, means) in zip(array, sorted(imatrix.items()), strict=False):
        slot.name = name.encode()
        slot.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        slot.size = means.size
    return array
