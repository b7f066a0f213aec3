"""Runs teach by themselves: what helped, what did not, and what solved an error."""

from typing import Any

import pytest
from reported import RECIPE, report, run, trained

from meetara_build.context.lessons import changes, signature
from meetara_build.context.sections import section
from meetara_build.context.store import Store

FASTER = {**RECIPE, "training": {**RECIPE["training"], "learning_rate": 1e-3}}  # type: ignore[dict-item]
CHANGE = "training.learning_rate: 0.0002 → 0.001"


def known(store: Store, domain: str | None = None) -> dict[str, Any]:
    """The knowledge base."""
    return section(store, "knowledge_base", domain)


def test_a_change_that_lowered_the_loss_is_a_pattern_with_its_runs(store: Store) -> None:
    before, after = trained(3.0), trained(2.7, recipe=FASTER)
    store.deliver([before])
    store.deliver([after])
    (pattern,) = known(store)["successful_patterns"]
    assert (pattern["change"], pattern["before"], pattern["after"]) == (CHANGE, 3.0, 2.7)
    assert pattern["gain"] == pytest.approx(0.1)
    assert pattern["runs"] == [before["id"], after["id"]]


def test_a_change_that_did_harm_is_remembered_as_tried(store: Store) -> None:
    store.deliver([trained(3.0), trained(3.3, recipe=FASTER)])
    assert known(store)["successful_patterns"] == []
    (strategy,) = known(store)["optimization_strategies"]
    assert (strategy["change"], strategy["tried"], strategy["helped"]) == (CHANGE, 1, 0)
    assert strategy["mean_gain"] == pytest.approx(-0.1)


def test_a_strategy_is_what_a_change_did_in_all_domains(store: Store) -> None:
    for domain, after in (("nutrition", 2.7), ("legal", 2.4), ("music", 3.3)):
        store.deliver([trained(3.0, domain=domain), trained(after, domain=domain, recipe=FASTER)])
    (strategy,) = known(store)["optimization_strategies"]
    assert (strategy["tried"], strategy["helped"]) == (3, 2)
    assert strategy["mean_gain"] == pytest.approx((0.1 + 0.2 - 0.1) / 3)
    assert [found["tried"] for found in known(store, "music")["optimization_strategies"]] == [1]


@pytest.mark.parametrize(
    "after",
    [
        trained(2.7),
        trained(2.7, recipe=FASTER, inputs={"dataset": "e" * 64}),
        trained(2.7, recipe=FASTER, inputs={"dataset": "d" * 64, "base": "b" * 64}),
        trained(2.7, recipe=FASTER, outcome="restored"),
        trained(2.7, recipe=FASTER, metrics={}),
        trained(2.7, recipe=FASTER, stage="merge"),
        trained(2.7, recipe=FASTER, domain="legal"),
    ],
    ids=[
        "the same recipe",
        "other data",
        "another base",
        "nothing was trained",
        "no figure",
        "another stage",
        "another domain",
    ],
)
def test_what_shows_nothing_teaches_nothing(store: Store, after: dict[str, Any]) -> None:
    store.deliver([trained(3.0)])
    store.deliver([after])
    assert known(store)["optimization_strategies"] == []


def test_a_failed_run_is_an_error_and_what_changed_until_it_went_through_its_solution(
    store: Store,
) -> None:
    store.deliver([run(outcome="failed", recipe=RECIPE, error="step 12: the loss is not finite")])
    (found,) = known(store)["error_solutions"]
    assert (found["message"], found["solution"]) == ("step 12: the loss is not finite", None)
    store.deliver([run(stage="gguf", recipe=FASTER), run(domain="legal", recipe=FASTER)])
    assert known(store)["error_solutions"][0]["solution"] is None
    assert known(store)["error_solutions"][0]["changes"] == []
    store.deliver([trained(2.5, recipe=FASTER)])
    solved = known(store)["error_solutions"][0]
    assert solved["solution"] == CHANGE
    assert solved["changes"] == [{"key": "training.learning_rate", "before": 2e-4, "after": 1e-3}]


def test_an_error_and_its_solution_may_come_together(store: Store) -> None:
    failed = run(outcome="failed", recipe=RECIPE, error="out of memory")
    solved = {**trained(2.5), "time": failed["time"] + 1}
    store.deliver([solved, failed])
    (found,) = known(store)["error_solutions"]
    assert found["solution"].startswith("the same recipe went through later")


def test_an_error_that_a_person_reports_may_be_solved_by_a_run(store: Store) -> None:
    store.deliver(
        [report("error", domain="nutrition", stage="adapter", sender="me", message="it hangs")]
    )
    store.deliver([trained(2.5)])
    (found,) = known(store)["error_solutions"]
    assert found["solution"].startswith("went through later")


def test_errors_with_the_same_reason_have_the_same_signature() -> None:
    one = "step 12: loss 3.5e+10 in /tmp/a/b.jsonl is not finite\nmore"
    other = "step 7: loss inf in /home/x/c.jsonl is not finite"
    assert signature(one) == "step N: loss N in PATH is not finite"
    assert signature(other) == "step N: loss inf in PATH is not finite"
    assert signature("") == signature("\n ") == "no reason given"


def test_changes_name_every_key_that_differs() -> None:
    assert changes(RECIPE, RECIPE) == ""
    assert changes(RECIPE, {**FASTER, "seed": 1}) == f"seed: None → 1; {CHANGE}"
