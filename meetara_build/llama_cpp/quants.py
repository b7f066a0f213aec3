"""The quantized types of llama.cpp, by the names it writes them with."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

QUANTS = (
    *(
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K_M",
        "Q5_K_S",
        "Q5_1",
        "Q5_0",
        "Q4_K_M",
        "Q4_K_S",
        "Q4_1",
        "Q4_0",
    ),
    *(
        "Q3_K_L",
        "Q3_K_M",
        "Q3_K_S",
        "Q2_K",
        "Q2_K_S",
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_M",
        "IQ3_S",
        "IQ3_XS",
        "IQ3_XXS",
    ),
    *("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0"),
)


TENSOR_TYPES = (
    *(
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K",
        "Q5_1",
        "Q5_0",
        "Q4_K",
        "Q4_1",
        "Q4_0",
        "Q3_K",
        "Q2_K",
    ),
    *(
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_S",
        "IQ3_XXS",
        "IQ2_S",
        "IQ2_XS",
        "IQ2_XXS",
        "IQ1_M",
        "IQ1_S",
        "TQ1_0",
        "TQ2_0",
    ),
)
"""How a single tensor is stored; a quant type mixes some of them."""

UNWEIGHTED = ("F32", "F16", "BF16", "Q8_0")
"""Types that no importance matrix helps: each weight keeps eight bits or more."""


CONVERTED = ("F32", "F16", "BF16")
"""Types that the converter writes; the others are quantized from the F16 file."""


class Storage(NamedTuple):
    """Bits a weight, and squared error as a share of the weights' squares: llama.cpp's, of normally
    distributed weights."""

    bits: float
    error: float


STORAGE = {
    "Q8_0": Storage(8.5, 2.9e-5),
    "Q6_K": Storage(6.5625, 3.0e-4),
    "Q5_K": Storage(5.5, 1.26e-3),
    "Q5_1": Storage(6.0, 1.15e-3),
    "Q5_0": Storage(5.5, 1.64e-3),
    "Q4_K": Storage(4.5, 5.0e-3),
    "Q4_0": Storage(4.5, 6.7e-3),
    "IQ4_NL": Storage(4.5, 5.6e-3),
    "IQ4_XS": Storage(4.25, 5.7e-3),
    "Q3_K": Storage(3.4375, 2.1e-2),
    "Q2_K": Storage(2.625, 7.2e-2),
}
"""By tensor type."""

FILE_BITS = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_K_M": 5.7,
    "Q5_K_S": 5.5,
    "Q4_K_M": 4.9,
    "Q4_K_S": 4.6,
    "IQ4_XS": 4.3,
    "Q3_K_M": 3.9,
    "Q2_K": 3.0,
}
"""Bits for each weight of a whole file of a type, scales included, and what its mix holds of larger
ones."""

LARGER = {
    "Q2_K": "Q3_K_M",
    "Q3_K_S": "Q3_K_M",
    "Q3_K_M": "Q4_K_M",
    "Q3_K_L": "Q4_K_M",
    "Q4_0": "Q4_K_M",
    "Q4_K_S": "Q4_K_M",
    "IQ4_XS": "Q4_K_M",
    "Q4_K_M": "Q5_K_M",
    "Q5_0": "Q5_K_M",
    "Q5_K_S": "Q5_K_M",
    "Q5_K_M": "Q6_K",
    "Q6_K": "Q8_0",
}
"""The quant type to take where one misses its bound."""


def needs_imatrix(quants: Sequence[str], tensor_types: Iterable[str]) -> bool:
    """Whether an importance matrix helps any of these files, whose tensors may have types of their
    own."""
    quantized = [quant for quant in quants if quant not in CONVERTED]
    return bool(quantized) and any(kind not in UNWEIGHTED for kind in (*quantized, *tensor_types))


def check_quant(name: str) -> None:
    """Refuse a type that llama.cpp does not know.

    Raises:
        ValueError: with the nearest known name.
    """
    _check(name, QUANTS, "quant type")


def check_quants(names: Sequence[str]) -> None:
    """Refuse a list with a type that llama.cpp does not know, or with one twice.

    Raises:
        ValueError: saying which, or that there is one.
    """
    for name in names:
        check_quant(name)
    if len(set(names)) != len(names):
        raise ValueError("a quant type is listed twice")


def check_tensor_type(name: str) -> None:
    """Refuse a type that llama.cpp stores no tensor in.

    Raises:
        ValueError: with the nearest known name.
    """
    _check(name, TENSOR_TYPES, "tensor type")


def _check(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        close = get_close_matches(name.upper(), known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {what} '{name}'; {hint}")
