"""A warm start raced against a cold one: the better goes on, as if there had been no race, also
when it is killed on its way."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from meetara_build.training import checkpoint
from meetara_build.training.chat import Encoded
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import Action, History, Progress, Settings, train
from meetara_build.training.race import Outcome, race, warm_wins
from meetara_build.training.state import copy_tensors, put, trainable

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
Weights = dict[str, torch.Tensor]
LORA = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.1,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}
SETTINGS = Settings(epochs=3, batch_tokens=32, learning_rate=5e-3, seed=7)


class Killed(Exception):
    """Stands for a kill."""


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lasting(history: History) -> History:
    return replace(history, seconds=0.0, cpu_seconds=0.0, peak_memory_bytes=0)


@pytest.fixture
def learnt(tiny: Make, records: Records) -> Weights:
    """What an adapter has learnt from records of the same kind."""
    model = attach(tiny(), LORA, seed=1)
    train(model, records(40, seed=5), [], replace(SETTINGS, learning_rate=2e-2))
    return copy_tensors(trainable(model))


def harmful(weights: Weights) -> Weights:
    """The same, doing the opposite, and much of it."""
    return {name: -10 * weight if "lora_B" in name else weight for name, weight in weights.items()}


@pytest.fixture
def run(
    tiny: Make, records: Records, tmp_path: Path
) -> Callable[..., tuple[Weights, History, Outcome]]:
    def run(start: Weights, observe: object = None) -> tuple[Weights, History, Outcome]:
        model = attach(tiny(), LORA, seed=1)
        weights = trainable(model)
        history, outcome = race(
            model,
            lambda: put(weights, start),
            records(20),
            records(6, seed=9),
            SETTINGS,
            tmp_path,
            observe,
        )  # type: ignore[arg-type]
        return copy_tensors(weights), lasting(history), outcome

    return run


@pytest.fixture
def alone(tiny: Make, records: Records) -> Callable[..., tuple[Weights, History]]:
    """A training without a race."""

    def alone(start: Weights | None = None) -> tuple[Weights, History]:
        model = attach(tiny(), LORA, seed=1)
        if start is not None:
            put(trainable(model), start)
        history = train(model, records(20), records(6, seed=9), SETTINGS)
        return copy_tensors(trainable(model)), lasting(history)

    return alone


def test_weights_that_help_win_and_are_trained_on(
    run: Callable, alone: Callable, learnt: Weights
) -> None:
    weights, history, outcome = run(learnt)
    assert outcome.warm_won
    assert outcome.warm < 0.997 * outcome.cold
    assert outcome.steps == math.ceil(len(history.curve) / 5)
    expected, plain = alone(learnt)
    assert same(weights, expected)
    assert history == plain


def test_weights_that_harm_lose_and_leave_no_trace(
    run: Callable, alone: Callable, learnt: Weights
) -> None:
    weights, history, outcome = run(harmful(learnt))
    assert not outcome.warm_won
    assert outcome.warm > outcome.cold
    expected, plain = alone()
    assert same(weights, expected)
    assert history == plain


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(
    "shown", [2, 10, 20], ids=["while cold runs", "while warm runs", "after the race"]
)
def test_a_race_that_was_killed_goes_on_to_the_same(
    helps: bool, shown: int, run: Callable, alone: Callable, learnt: Weights
) -> None:
    start, seen = learnt if helps else harmful(learnt), list[int]()

    def kill(progress: Progress) -> Action | None:
        seen.append(progress.step)
        if len(seen) == shown:
            raise Killed
        return Action.CHECKPOINT

    with pytest.raises(Killed):
        run(start, kill)
    went_on: list[int] = []
    weights, history, _ = run(start, lambda progress: went_on.append(progress.step))
    assert went_on[0] == seen[-1], "it does not begin again"
    expected, plain = alone(learnt if helps else None)
    assert same(weights, expected)
    assert history == plain


@pytest.mark.parametrize("damaged", ["cold", "warm"])
def test_a_damaged_checkpoint_of_either_changes_nothing(
    damaged: str, run: Callable, alone: Callable, learnt: Weights, tmp_path: Path
) -> None:
    run(learnt)
    path = tmp_path / damaged / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:-50])
    weights, history, outcome = run(learnt)
    assert outcome.warm_won
    expected, plain = alone(learnt)
    assert same(weights, expected)
    assert history == plain


@pytest.mark.parametrize(
    ("warm", "cold", "wins"),
    [
        (2.99, 3.0, True),
        (2.992, 3.0, False),
        (3.1, 3.0, False),
        (math.nan, 3.0, False),
        (9.0, math.nan, True),
    ],
)
def test_the_warm_start_has_to_lead_by_a_little(warm: float, cold: float, wins: bool) -> None:
    assert warm_wins(warm, cold) is wins


def test_a_start_whose_loss_is_no_number_loses(
    run: Callable, alone: Callable, learnt: Weights
) -> None:
    """Both are shown to the observer, which skips what the bad one cannot learn from."""
    spoilt = {name: weight * float("nan") for name, weight in learnt.items()}
    weights, _, outcome = run(spoilt, lambda progress: Action.ROLL_BACK if progress.fault else None)
    assert not outcome.warm_won
    assert same(weights, alone()[0])
