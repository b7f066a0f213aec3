"""Which decisions are taken back: those in force that made things worse, and none that ended a
failure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from told import accepted, run

from meetara_build.agents.snapshot import Context, Domain, Run
from meetara_build.rounds.asking import withdrawn

AFTER = run("c", 9.0, 6.2)


def context_of(messages: Sequence[Any], runs: Sequence[Run], *decided: tuple[str, Any]) -> Context:
    """A domain whose overlay holds these decisions."""
    domain = Domain(
        name="nutrition",
        category="own",
        description="",
        topics=[],
        languages=[],
        config={},
        model={},
        machine={},
        locked=[],
        decisions=[{"key": key, "value": value, "agent": "tuner"} for key, value in decided],
        folder=Path(),
        sources=[],
        decided={},
    )
    return Context({"nutrition": domain}, runs, messages=messages)


def withdrawals(*runs: Run) -> list[str]:
    """The keys of the decisions that these runs speak against."""
    return [
        one.key for one in withdrawn(context_of([accepted("p", 5.0)], runs, ("training.epochs", 4)))
    ]


def test_what_raised_the_loss_is_taken_back() -> None:
    assert withdrawals(run("a", 1.0, 6.0), AFTER) == ["training.epochs"]
    assert withdrawals(run("a", 1.0, 6.4), AFTER) == []


def test_what_made_a_training_fail_is_taken_back() -> None:
    assert withdrawals(run("a", 1.0, 6.0), run("c", 9.0)) == ["training.epochs"]


def test_what_ended_the_failure_of_a_later_step_stays_whatever_the_loss() -> None:
    failed = run("b", 2.0, stage="gguf")
    assert (
        withdrawals(run("a", 1.0, 6.0), failed, AFTER, run("d", 9.5, stage="gguf", outcome="built"))
        == []
    )
    assert withdrawals(run("a", 1.0, 6.0), failed, AFTER, run("d", 9.5, stage="gguf")) == [
        "training.epochs"
    ]


def test_of_several_that_made_it_worse_together_none_is_rejected_for_good() -> None:
    both = [accepted("p", 5.0), accepted("q", 5.0, key="lora.rank", value=8)]
    decided = [("training.epochs", 4), ("lora.rank", 8)]
    runs = [run("a", 1.0, 6.0), run("b", 9.0, 6.5)]
    found = [
        (one.key, one.others, one.answer) for one in withdrawn(context_of(both, runs, *decided))
    ]
    assert found == [("training.epochs", 1, "noted"), ("lora.rank", 1, "noted")]
    assert [
        (one.others, one.answer) for one in withdrawn(context_of(both[:1], runs, *decided))
    ] == [(0, "rejected")]
