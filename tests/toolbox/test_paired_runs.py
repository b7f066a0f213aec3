"""Evidence is a pair of trainings that differ in one key, on the same base and data; a share is as
sure as Wilson has it."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "plugins"))
from contexts import context, domain, recipe, training

from meetara_build.toolbox.paired_runs import base_changes, by_domain, changes, lower_bound


def test_two_runs_that_differ_in_one_key_are_a_change(tmp_path: Path) -> None:
    first, second = training("music", 5.0), training("music", 4.5, {"training.epochs": 6})
    (change,) = changes(context(domain(tmp_path, "music"), runs=[first, second]))
    assert change[:4] == ("music", "training.epochs", 3, 6)
    assert change.gain == pytest.approx(0.1)
    assert change.runs == (first.id, second.id)
    assert change.turned().gain == pytest.approx(-1 / 9)
    assert change.turned()[2:4] == (6, 3)


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        ({"training.epochs": 6, "lora.rank": 8}, {}),
        ({"seed": 18}, {}),
        ({"training.epochs": 6}, {"dataset": "other"}),
        ({"training.epochs": 6}, {"base": "other"}),
        ({}, {}),
    ],
)
def test_nothing_else_is(tmp_path: Path, config: dict[str, int], inputs: dict[str, str]) -> None:
    first = training("music", 5.0)
    second = training("music", 4.5, config, inputs={**first.inputs, **inputs})
    assert changes(context(domain(tmp_path, "music"), runs=[first, second])) == []


def test_a_recipe_that_was_run_again_counts_once_and_failures_do_not(tmp_path: Path) -> None:
    runs = [training("music", 5.0), training("music", 4.5, {"training.epochs": 6})]
    again = training("music", 4.4, {"training.epochs": 6})
    failed = training("music", 1.0, {"training.epochs": 9}, outcome="failed")
    assert [
        change.after
        for change in changes(context(domain(tmp_path, "music"), runs=[*runs, again, failed]))
    ] == [4.4]


def test_one_change_apart_is_found_among_many_runs(tmp_path: Path) -> None:
    both = {"training.epochs": 6, "lora.rank": 8}
    runs = [
        training("music", 5.0),
        training("music", 4.0, both),
        training("music", 4.5, {"lora.rank": 8}),
    ]
    found = changes(context(domain(tmp_path, "music"), runs=runs))
    assert {(change.key, change.old, change.new) for change in found} == {
        ("lora.rank", 16, 8),
        ("training.epochs", 6, 3),
    }


def test_a_domain_has_one_vote(tmp_path: Path) -> None:
    runs = [training("music", 5.0), training("music", 4.0, {"training.epochs": 6})]
    other = {"dataset": "more", "base": "base-digest"}
    runs += [
        training("music", 5.0, inputs=other),
        training("music", 5.5, {"training.epochs": 6}, inputs=other),
    ]
    assert by_domain(changes(context(domain(tmp_path, "music"), runs=runs))) == {
        "music": pytest.approx(0.05)
    }


def test_few_successes_are_not_enough_and_failures_take_them_back() -> None:
    assert lower_bound(0, 0) == 0
    assert lower_bound(1, 1) < 0.5 < lower_bound(2, 2) < lower_bound(20, 20) < 1
    assert lower_bound(4, 5) > 0.5 > lower_bound(4, 6)


def test_bases_are_compared_by_the_nats_of_the_same_text(tmp_path: Path) -> None:
    """The second has a larger loss a token, and half as many tokens."""
    runs = [
        training("music", 4.0, metrics={"completion_tokens": 3000}),
        training(
            "music",
            6.0,
            metrics={"completion_tokens": 1500},
            inputs={"base": "other", "dataset": "music-digest"},
        ),
    ]
    named = [
        type(run)(**{**run.__dict__, "stage": "gguf", "recipe": {**recipe(), "base": name}})
        for run, name in zip(runs, ("mini", "large"), strict=True)
    ]
    found = base_changes(context(domain(tmp_path, "music"), runs=[*runs, *named]))
    assert {(change.old, change.new): change.gain for change in found} == {
        ("mini", "large"): pytest.approx(0.25),
        ("large", "mini"): pytest.approx(-1 / 3),
    }
