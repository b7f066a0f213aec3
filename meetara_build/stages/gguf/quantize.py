"""Quantized files by llama.cpp itself."""

import ctypes
import errno
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
from llama_cpp import llama_cpp as ll

from meetara_build.errors import ConfigError, ProofError
from meetara_build.llama_cpp.header import tensor_types, tensors
from meetara_build.llama_cpp.importance import Imatrix
from meetara_build.llama_cpp.model import last_words, listening

NEEDS_IMATRIX = frozenset(
    {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"},
)
"""Types that llama.cpp makes only with an importance matrix."""

_FALLBACK = re.compile(
    r"(\S+)\s+- ncols\s+(\d+) not divisible by\s+\d+ \(required for type\s+(\S+)\).*?->.*?back to\s+(\S+)"
)


def check_needs(quants: Sequence[str], imatrix: bool, where: str) -> None:
    """Refuse types that need an importance matrix where there is none; ``where`` says whose they
    are.

    Raises:
        ConfigError: naming the types.
    """
    if (needing := sorted(NEEDS_IMATRIX.intersection(quants))) and not imatrix:
        raise ConfigError(
            f"{where}: {', '.join(needing)} can be made only with an "
            "importance matrix: set gguf.imatrix.enabled to true, or choose other types"
        )


class Fallback(NamedTuple):
    """A tensor whose rows do not fit the type it should have: K-quants want multiples of 256."""

    tensor: str
    columns: int
    wanted: str
    given: str

    def __str__(self) -> str:
        """As proof.json has it."""
        return f"{self.tensor}: {self.columns} columns, {self.wanted} -> {self.given}"


def quantize(
    source: Path,
    target: Path,
    quant: str,
    imatrix: Imatrix,
    threads: int,
    types: Mapping[str, str] | None = None,
) -> list[Fallback]:
    """Quantize an F16 file; ``types`` are tensors that get a type of their own, whatever the rest
    gets.

    Raises:
        OSError: the disk is full.
        ProofError: llama.cpp refuses, for instance an IQ type for a tensor without importance data.
    """
    params = _params(quant, threads, imatrix)
    fallbacks = _run(source, target, quant, params)
    if types:
        # Which layers get more bits depends on how many have no type of their own: all get the one
        # that the plain file has.
        plain = {name: kind.upper() for name, kind in tensor_types(target).items() if kind != "f32"}
        params.tt_overrides = _tensor_types({**plain, **types})
        _run(source, target, quant, params)
    return [fallback for fallback in fallbacks if fallback.tensor not in (types or {})]


def expand(source: Path, target: Path, threads: int) -> None:
    """Write any GGUF file in float32, its weights as llama.cpp itself works them out.

    Raises:
        OSError: the disk is full.
        ProofError: llama.cpp refuses.
    """
    params = _params("F32", threads, {})
    params.allow_requantize = True
    _run(source, target, "F32", params)


def misfits(source: Path, quant: str, types: Mapping[str, str]) -> list[Fallback]:
    """Which of these tensors have rows that do not fit their type; nothing is written."""
    params = _params(quant, 1, {})
    params.dry_run = True
    params.tt_overrides = _tensor_types(types)
    return [
        fallback for fallback in _run(source, source, quant, params) if fallback.tensor in types
    ]


def _params(quant: str, threads: int, imatrix: Imatrix) -> Any:
    params = ll.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = int(gguf.LlamaFileType["ALL_F32" if quant == "F32" else f"MOSTLY_{quant}"])
    if imatrix:
        params.imatrix = _imatrix_data(imatrix)
    return params


def _run(source: Path, target: Path, quant: str, params: Any) -> list[Fallback]:
    with listening() as lines:
        code = ll.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(params)
        )
    if code != 0:
        if target != source:
            target.unlink(missing_ok=True)
        if shutil.disk_usage(target.parent).free < source.stat().st_size:
            raise OSError(errno.ENOSPC, "no space left for the quantized file", str(target))
        raise ProofError(
            f"{target.name}: llama.cpp cannot quantize to {quant}: {last_words()}. Choose another "
            "type."
        )
    found = _FALLBACK.findall(" ".join(lines))
    return sorted(
        Fallback(name, int(columns), wanted, given) for name, columns, wanted, given in found
    )


def count_types(path: Path) -> dict[str, int]:
    """How many tensors of a GGUF file are stored in which type."""
    return dict(sorted(Counter(tensor_types(path).values()).items()))


def count_stored(path: Path) -> dict[str, dict[str, int]]:
    """Bytes of a file's tensors by what they are and how they are stored:
    ``{"attn_v": {"q4_K": 98304, "q6_K": 53760}}``."""
    found: dict[str, dict[str, int]] = {}
    for name, tensor in tensors(path).items():
        by_type = found.setdefault(group(name), {})
        by_type[tensor.type] = by_type.get(tensor.type, 0) + tensor.size
    return found


def summarize_fallbacks(
    fallbacks: Mapping[str, Sequence[Fallback]],
) -> dict[str, dict[str, int]]:
    """How many tensors of which kind have rows that do not fit, by the file's type."""
    return {
        quant: dict(sorted(Counter(group(fallback.tensor) for fallback in found).items()))
        for quant, found in fallbacks.items()
        if found
    }


def group(name: str) -> str:
    """What a tensor is, whichever layer it is in: ``blk.3.attn_v.weight`` is an ``attn_v``."""
    return re.sub(r"^blk\.\d+\.|\.(weight|bias)$", "", name)


def _imatrix_data(imatrix: Imatrix) -> Any:
    """The array that llama.h wants, ended by an entry without a name."""
    array = (ll.llama_model_imatrix_data * (len(imatrix) + 1))()
    for slot, (name, means) in zip(array, sorted(imatrix.items()), strict=False):
        slot.name = name.encode()
        slot.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        slot.size = means.size
    return array


def _tensor_types(types: Mapping[str, str]) -> Any:
    """The array that llama.h wants, ended by an entry without a pattern; each pattern matches one
    name."""
    array = (ll.llama_model_tensor_override * (len(types) + 1))()
    for slot, (name, kind) in zip(array, types.items(), strict=False):
        slot.pattern = f"^{name.replace('.', '[.]')}$".encode()
        slot.type = int(gguf.GGMLQuantizationType[kind])
    return array
