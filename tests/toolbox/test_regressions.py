"""A model that is worse than the best before it, on the same held-out records, is a regression."""

from typing import Any

import pytest

from meetara_build.agents import Context, Run
from meetara_build.toolbox.regressions import difference, list_evaluated, regression


def run(stage: str, time: float, key: str, outcome: str = "built", **fields: Any) -> Run:
    """A run of nutrition's."""
    given: dict[str, Any] = {
        "id": f"{stage}{time:g}",
        "build": f"build{time:g}",
        "machine": "here",
        "hardware": "cpu",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "peak_mb": 1.0,
        "size": 1,
        "fingerprint": "f",
        "usd": 0.0,
        **fields,
    }
    return Run(domain="nutrition", stage=stage, time=time, key=key, outcome=outcome, **given)


def model(
    time: float, loss: float, data: str = "d", rate: float = 1e-3, **fields: Any
) -> list[Run]:
    """A training, and a second later the evaluation of what came of it."""
    recipe = {"training": {"learning_rate": rate, "epochs": 3}}
    inputs = {"dataset": f"train-{data}"}
    return [
        run(
            "adapter",
            time,
            f"a{time}",
            recipe=recipe,
            inputs=inputs,
            metrics={"validation_loss_after": loss},
        ),
        run(
            "evaluate",
            time + 1,
            f"e{time}",
            metrics={"losses": {"F16": loss}},
            inputs={"dataset": data},
            **fields,
        ),
    ]


def context(*models: list[Run]) -> Context:
    return Context({}, [one for several in models for one in several])


def test_the_newest_is_compared_with_the_best_before_it() -> None:
    results = list_evaluated(
        context(model(10, 5.2), model(20, 5.0), model(30, 5.3, rate=4e-3)), "nutrition"
    )
    assert [one.loss for one in results] == [5.2, 5.0, 5.3]
    best, newest = regression(results) or (None, None)
    assert best is not None and newest is not None
    assert (best.loss, newest.loss) == (5.0, 5.3)
    assert (
        difference(best.training, newest.training)
        == "what differs: training.learning_rate: 0.001 → 0.004"
    )


@pytest.mark.parametrize("losses", [[5.0], [5.0, 5.05], [5.2, 5.0]])
def test_a_little_worse_or_better_is_no_regression(losses: list[float]) -> None:
    models = [model(10.0 * at, loss) for at, loss in enumerate(losses, 1)]
    assert regression(list_evaluated(context(*models), "nutrition")) is None


def test_results_on_other_held_out_records_are_not_compared() -> None:
    results = list_evaluated(
        context(model(10, 4.0, data="old"), model(20, 5.0), model(30, 5.3)), "nutrition"
    )
    assert [one.loss for one in results] == [5.0, 5.3]


def test_failed_evaluations_and_other_domains_do_not_count() -> None:
    failed = run("evaluate", 5, "x", "failed", error="no such file")
    assert [one.loss for one in list_evaluated(context([failed], model(10, 5.0)), "nutrition")] == [
        5.0
    ]
    assert list_evaluated(context(model(10, 5.0)), "music") == []


def test_a_model_that_was_restored_is_the_newest_again() -> None:
    first, second = model(10, 5.0), model(20, 5.4)
    again = run(
        "evaluate", 30, first[1].key, "restored", metrics=first[1].metrics, inputs=first[1].inputs
    )
    results = list_evaluated(context(first, second, [again]), "nutrition")
    assert [one.loss for one in results] == [5.4, 5.0]
    assert regression(results) is None


def test_what_differs_may_be_the_data_or_unknown() -> None:
    old, new = model(10, 5.0)[0], model(20, 5.0, data="new")[0]
    assert difference(old, new) == "what differs: another dataset"
    assert difference(old, model(30, 5.0)[0]) == "both trainings have the same recipe and inputs"
    assert difference(None, new) == "the trainings are not among the runs that are kept"
