"""The quantized types of llama.cpp, by the names it writes them with."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

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


def weighed(quants: Sequence[str], tensor_types: Iterable[str]) -> bool:
    """Whether an importance matrix helps any of these files, whose tensors may have types of their own."""
    quantized = [quant for quant in quants if quant not in CONVERTED]
    return bool(quantized) and any(kind not in UNWEIGHTED for kind in (*quantized, *tensor_types))


def check_quant(name: str) -> None:
    """Refuse a type that llama.cpp does not know.

    Raises:
        ValueError: with the nearest known name.
    """
    _check(name, QUANTS, "quant type")


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
