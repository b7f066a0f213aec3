"""What records of one row begin with together: a system prompt and a chat template's head, a third
of a short record's tokens, that need be computed but once.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

LEAST = 8
"""Tokens that are worth a segment of their own in attention."""


class Group(NamedTuple):
    """Texts, by index, that begin with the same ``shared`` tokens; each has more than these."""

    shared: int
    members: list[int]


def group_texts(texts: Sequence[list[int]]) -> list[Group]:
    """Every text in one group, in the order of their first members; so that much is shared, though
    texts of several kinds lie side by side."""
    order = sorted(range(len(texts)), key=lambda index: texts[index])
    same = [count_same(texts[one], texts[other]) for one, other in pairwise(order)]
    groups, waiting = list[Group](), [(0, len(order))]
    while waiting:
        start, end = waiting.pop()
        shared, cut = min(((same[at], at) for at in range(start, end - 1)), default=(0, start))
        parts = [(start, cut + 1), (cut + 1, end)]
        if end - start > 1 and (
            shared < LEAST
            or sum(_saving(same, *part) for part in parts) > _saving(same, start, end)
        ):
            waiting += parts
        elif end > start:
            groups.append(Group(shared, sorted(order[start:end])))
    return sorted(groups, key=lambda group: group.members[0])


def count_same(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens with which two texts begin alike; less than either has."""
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)


def _saving(same: Sequence[int], start: int, end: int) -> int:
    """Tokens that a run of sorted texts would save as one group."""
    shared = min(same[start : end - 1], default=0)
    return (end - start - 1) * shared if shared >= LEAST else 0
