"""Which decisions are taken back: those in force that made things worse, and none that ended a failure."""

from pathlib import Path

from told import accepted, run

from meetara_build.agents.asking import withdrawn
from meetara_build.agents.snapshot import Context, Domain, Run

AFTER = run("c", 9.0, 6.2)


def withdrawals(*runs: Run) -> list[str]:
    """The keys of the decisions that these runs speak against."""
    domain = Domain(
        name="nutrition", category="own", description="", topics=[], languages=[], config={}, model={}, machine={}, locked=[],
        decisions=[{"key": "training.epochs", "value": 4, "agent": "tuner"}], folder=Path(), sources=[], decided={},
    )  # fmt: skip
    return [one.key for one in withdrawn(Context({"nutrition": domain}, runs, messages=[accepted("p", 5.0)]))]


def test_what_raised_the_loss_is_taken_back() -> None:
    assert withdrawals(run("a", 1.0, 6.0), AFTER) == ["training.epochs"]
    assert withdrawals(run("a", 1.0, 6.4), AFTER) == []


def test_what_made_a_training_fail_is_taken_back() -> None:
    assert withdrawals(run("a", 1.0, 6.0), run("c", 9.0)) == ["training.epochs"]


def test_what_ended_the_failure_of_a_later_step_stays_whatever_the_loss() -> None:
    failed = run("b", 2.0, stage="gguf")
    assert withdrawals(run("a", 1.0, 6.0), failed, AFTER, run("d", 9.5, stage="gguf", outcome="built")) == []
    assert withdrawals(run("a", 1.0, 6.0), failed, AFTER, run("d", 9.5, stage="gguf")) == ["training.epochs"]
