"""The sample that stands for all domains' text: pinned, and nothing of it held out by any of
them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from stages.test_corpus import preparation, read, write

from meetara_build.errors import DataError
from meetara_build.stages import dataset, sample
from meetara_build.stages.recipes.preparation import Preparation
from meetara_build.stages.recipes.sample import SampleRecipe

WORDS = [
    "bread",
    "rice",
    "beans",
    "soup",
    "apples",
    "pears",
    "plums",
    "figs",
    "dates",
    "nuts",
    "seeds",
    "milk",
    "tea",
    "water",
    "juice",
]
PAIRS = [
    (f"What of {word} and {other}?", f"Of {word} take {len(word) * 7} grams, then {other}, daily.")
    for word in WORDS
    for other in WORDS[::4]
    if word != other
]


def make(
    folder: Path, given: Mapping[str, Sequence[tuple[str, str]]], records: int = 3, **changes: Any
) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    recipe = {
        "records": records,
        "domains": {name: preparation(name, **changes) for name in given},
    }
    paths = {name: write(folder / f"{name}.jsonl", pairs) for name, pairs in given.items()}
    sources = {f"{name}/source_0": path for name, path in paths.items()}
    sample.run(SampleRecipe.model_validate(recipe), sources, folder)
    return read(folder / "sample.jsonl")


def split(folder: Path, name: str, pairs: Sequence[tuple[str, str]], **changes: Any) -> Any:
    path = write(folder / "own.jsonl", pairs)
    recipe = Preparation.model_validate(preparation(name, **changes))
    return dataset.prepare(recipe, {"source_0": path})


def test_so_many_records_of_each_domain_take_turns(tmp_path: Path) -> None:
    found = make(tmp_path / "out", {"a": PAIRS[:25], "b": PAIRS[25:]}, near_group=1.0)
    assert [line["domain"] for line in found] == ["a", "b"] * 3
    assert all(
        [turn["role"] for turn in line["messages"]] == ["user", "assistant"] for line in found
    )


def test_they_are_training_records(tmp_path: Path) -> None:
    found = make(tmp_path / "out", {"a": PAIRS}, records=1000, near_group=1.0)
    sides = split(tmp_path, "a", PAIRS, near_group=1.0)
    assert {line["id"] for line in found} == {record.id for record in sides.train}
    assert sides.validation and sides.test


def test_what_another_domain_holds_out_is_left_out(tmp_path: Path) -> None:
    """Two domains with the same records, of which one tests on more."""
    folder = tmp_path / "out"
    folder.mkdir()
    path = write(folder / "both.jsonl", PAIRS)
    domains = {
        "a": preparation("a", near_group=1.0, validation=0.0, test=0.1),
        "b": preparation("b", near_group=1.0, validation=0.2, test=0.5),
    }
    recipe = SampleRecipe.model_validate({"records": 1000, "domains": domains})
    metrics = sample.run(recipe, {"a/source_0": path, "b/source_0": path}, folder)
    held_out = split(tmp_path, "b", PAIRS, near_group=1.0, validation=0.2, test=0.5)
    ids = {record.id for record in (*held_out.validation, *held_out.test)}
    found = read(folder / "sample.jsonl")
    assert found and not ids & {line["id"] for line in found}
    assert metrics["by_domain"]["a"] == metrics["by_domain"]["b"] == len(found) / 2


def test_a_record_more_leaves_the_sample_or_takes_one_place(tmp_path: Path) -> None:
    before = make(tmp_path / "before", {"a": PAIRS[:-1]}, records=5, near_group=1.0)
    after = make(tmp_path / "after", {"a": PAIRS}, records=5, near_group=1.0)
    kept = {line["id"] for line in before} & {line["id"] for line in after}
    assert len(kept) >= 4


def test_a_domain_with_few_records_gives_what_it_has(tmp_path: Path) -> None:
    found = make(tmp_path / "out", {"a": PAIRS[:10], "b": PAIRS[10:]}, records=9, near_group=1.0)
    counts = [sum(line["domain"] == name for line in found) for name in "ab"]
    assert 0 < counts[0] < 9 and counts[1] == 9


def test_where_all_is_held_out_by_one_or_the_other_there_is_no_sample(tmp_path: Path) -> None:
    domains = {
        "a": preparation("a", near_group=1.0, validation=0.0, test=0.6),
        "b": preparation("b", near_group=1.0, validation=0.6, test=0.1),
    }
    path = write(tmp_path / "both.jsonl", PAIRS)
    recipe = SampleRecipe.model_validate({"records": 3, "domains": domains})
    with pytest.raises(DataError, match=r"no training record of a, b is left.*imatrix\.domains"):
        sample.run(recipe, {"a/source_0": path, "b/source_0": path}, tmp_path)
