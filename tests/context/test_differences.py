"""Every difference of two nested mappings is named, and none that is not there."""

import copy
import json
from typing import Any

from artifacts import QUICK
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.context.differences import differences, is_comparable

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(0, 3)
    | st.sampled_from([0.0, 1.0, "", "a"])
    | st.lists(st.just("a"))
)
KEYS = st.sampled_from("abc")
NESTED = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
)


def filled(value: Any) -> Any:
    """Without keys that hold nothing: to a person they are not there."""
    if not isinstance(value, dict):
        return value
    return {key: filled(inner) for key, inner in value.items() if inner is not None}


def at(value: Any, path: list[str]) -> Any:
    """What a path of keys leads to; None where it ends early."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


@given(NESTED)
def test_nothing_differs_from_itself(recipe: dict[str, Any]) -> None:
    assert list(differences(recipe, copy.deepcopy(recipe))) == []


@given(NESTED, NESTED)
def test_differences_are_named_if_there_are_any_and_only_then(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    # In JSON, which fingerprints are made from, 1, 1.0 and true are three values.
    same = json.dumps(filled(old), sort_keys=True) == json.dumps(filled(new), sort_keys=True)
    assert (list(differences(old, new)) == []) == same


@given(NESTED, NESTED)
def test_a_difference_names_the_place_and_both_values(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    found = list(differences(old, new))
    for path, one, other in found:
        assert (at(old, path), at(new, path)) == (one, other)
    paths = [".".join(path) for path, _, _ in found]
    assert len(paths) == len(set(paths))


@QUICK
@given(NESTED, NESTED)
def test_the_way_back_has_the_same_differences_the_other_way_round(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    back = [(path, other, one) for path, one, other in differences(new, old)]
    assert repr(list(differences(old, new))) == repr(back)


def test_a_difference_deep_inside_is_named_by_its_whole_path() -> None:
    old = {"lora": {"rank": 16, "alpha": 32.0}, "imatrix": {"enabled": True}, "seed": 1}
    new = {"lora": {"rank": 8, "alpha": 32}, "imatrix": None, "seed": 1}
    assert list(differences(old, new)) == [
        (["imatrix"], {"enabled": True}, None),
        (["lora", "alpha"], 32.0, 32),
        (["lora", "rank"], 16, 8),
    ]


def test_losses_are_compared_where_base_and_data_are_the_same() -> None:
    here = {"base": "b", "dataset": "d", "warm_start": "w"}
    assert is_comparable(here, {"base": "b", "dataset": "d"})
    assert not is_comparable(here, {"base": "other", "dataset": "d"})
    assert not is_comparable(here, {"base": "b", "dataset": "other"})
