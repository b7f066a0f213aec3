"""What differs between two nested mappings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], above: Sequence[str] = ()
) -> Iterator[tuple[list[str], Any, Any]]:
    """Path, old and new value of each changed leaf of two nested mappings."""
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        path = [*above, key]
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, path)
        elif one != other or type(one) is not type(other):
            yield path, one, other
