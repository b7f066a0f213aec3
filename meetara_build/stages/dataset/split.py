"""Which side of the split a record is on: decided by what it says, not by where it stands or what
stands beside it."""

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from typing import Literal

from meetara_build.errors import DataError

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")

FEWEST_RECORDS = 8
FEWEST_GROUPS = 3


def split(
    ids: Sequence[str],
    groups: Sequence[int],
    validation: float,
    test: float,
    taught: Set[str] = frozenset(),
) -> list[Side]:
    """The side of each record.

    A group has a place on [0, 1): the hash of the smallest id of its members. (The smallest id
    itself would draw large groups to one end.) From 0 up to ``validation`` lies the validation
    side, from 1 - ``test`` on the test side, and train in between. So a further record moves no
    other one, unless it joins groups, with one exception: a side that is left with too few groups
    (see ``_fewest``) borrows the nearest ones of train, and gives them back when it grows.

    A group with a ``taught`` record, of the pinned sample, is train's whatever its place.

    Raises:
        DataError: there are too few records, or too few that are not alike, for three sides.
    """
    if len(ids) < FEWEST_RECORDS:
        raise DataError(
            f"the {len(ids)} usable records are too few to train, validate and test: "
            f"at least {FEWEST_RECORDS} are needed; add records"
        )
    smallest: dict[int, str] = {}
    for name, group in zip(ids, groups, strict=True):
        smallest[group] = min(name, smallest.get(group, name))
    if len(smallest) < FEWEST_GROUPS:
        raise DataError(
            f"the {len(ids)} usable records are so alike that they form {len(smallest)} group(s), "
            "and near-duplicates must stay on one side of the split: add records that differ, or "
            "raise data.near_group"
        )
    places = {group: place(name) for group, name in smallest.items()}
    sides: dict[int, Side] = {group: _side(at, validation, test) for group, at in places.items()}
    known = {group for name, group in zip(ids, groups, strict=True) if name in taught}
    sides |= dict.fromkeys(known, "train")
    free = places.keys() - known
    rising = sorted(free, key=lambda group: (places[group], smallest[group]))
    least = _fewest(len(places), validation, test)
    _borrow(sides, rising[::-1], "test", least)
    _borrow(sides, rising, "validation", least)
    _borrow(sides, rising, "train", least)
    return [sides[group] for group in groups]


def place(name: str) -> float:
    """A number on [0, 1), evenly spread and the same for the same record everywhere."""
    return int.from_bytes(hashlib.sha256(f"split:{name}".encode()).digest()[:8], "big") / 2**64


def _side(at: float, validation: float, test: float) -> Side:
    if at < validation:
        return "validation"
    return "test" if at >= 1.0 - test else "train"


def _fewest(groups: int, validation: float, test: float) -> dict[Side, int]:
    """Groups that each side has at the least."""
    many = groups >= 12
    return {
        "train": 1,
        "validation": (2 if many else 1) if validation else 0,
        "test": (4 if many else 2 if groups >= 8 else 1) if test else 0,
    }


def _borrow(
    sides: dict[int, Side], nearest: Sequence[int], side: Side, least: dict[Side, int]
) -> None:
    """Fill a side up to its least with the nearest groups of a side that can spare them, of train
    if it can."""
    count = Counter(sides.values())
    for lender in SIDES:
        for group in nearest:
            if count[side] >= least[side]:
                return
            if sides[group] == lender != side and count[lender] > least[lender]:
                sides[group] = side
                count[side] += 1
                count[lender] -= 1
