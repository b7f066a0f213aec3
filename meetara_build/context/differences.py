"""What differs between two recipes, and which results may be compared at all."""

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


def starting_point(inputs: Mapping[str, str]) -> dict[str, str]:
    """From the digests of a training's inputs, those of its base and its data set."""
    return {name: digest for name, digest in inputs.items() if name in ("base", "dataset")}


def is_comparable(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two trainings, by their inputs, began with the same base and the same data: else
    their losses say nothing of a key."""
    return starting_point(one) == starting_point(other)
