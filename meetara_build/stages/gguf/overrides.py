"""Types of single tensors: which tensors a pattern names, and whether they can be stored so.

llama.cpp (``llama_tensor_get_type``) would take the first of its own regular expressions that
matches, silently store rows that do not fit in another type, count layers without those that have a
type of their own, so that others move between types, and abort where a type needs importance data
that is not there. So it is given a whole name and a type for every tensor, all checked here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.header import tensor_types
from meetara_build.stages.gguf.quantize import NEEDS_IMATRIX, Fallback, group, misfits


def resolve(patterns: Mapping[str, str], source: Path, quant: str) -> dict[str, str]:
    """The type of each tensor of an F16 file that a pattern names; ``quant`` is any type that the
    file will be quantized to.

    Norms and other tensors that are never quantized are stored in F32, and no pattern names them.

    Raises:
        ConfigError: a pattern matches no tensor, two patterns want different types for one, or rows
            do not fit the type.
    """
    names = [name for name, kind in tensor_types(source).items() if kind == "f16"]
    types: dict[str, str] = {}
    by: dict[str, str] = {}
    for pattern, kind in patterns.items():
        matching = [name for name in names if re.search(pattern, name)]
        if not matching:
            raise ConfigError(
                f"gguf.tensor_types: '{pattern}' matches no tensor of {source.name}. Name some of "
                f"{_groups(names)}."
            )
        for name in matching:
            if types.setdefault(name, kind) != kind:
                raise ConfigError(
                    f"gguf.tensor_types: {name} is {types[name]} by '{by[name]}' and {kind} by "
                    f"'{pattern}'. Narrow one of the patterns."
                )
            by.setdefault(name, pattern)
    _refuse(misfits(source, quant, types), by)
    return types


def check_importance(types: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse types that need importance data for tensors that have none: the embedding, the output,
    or all without an imatrix.

    Raises:
        ConfigError: naming the first tensor.
    """
    measured = set(known)
    for name, kind in types.items():
        if kind in NEEDS_IMATRIX and name not in measured:
            raise ConfigError(
                f"gguf.tensor_types: {name} cannot be {kind}, which needs importance data, and "
                "there is none for it. Choose a type without it (Q2_K, Q3_K), or set "
                "gguf.imatrix.enabled to true."
            )


def _groups(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(group(name) for name in names))


def _refuse(found: Iterable[Fallback], by: Mapping[str, str]) -> None:
    for fallback in found:
        raise ConfigError(
            f"gguf.tensor_types: '{by[fallback.tensor]}' wants {fallback.wanted.upper()} for "
            f"{fallback.tensor}, whose rows of {fallback.columns} do not fit it (types with a K, "
            "IQ and TQ want multiples of 256, but for IQ4_NL; the others of 32). Choose another "
            "type."
        )
