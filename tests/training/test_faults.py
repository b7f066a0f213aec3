"""Steps that fail: what an observer can do about them, and that the result is the one it would have
been where that is possible."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training import checkpoint, run, schedule
from meetara_build.training.chat import Encoded
from meetara_build.training.faults import ran_out_of_memory
from meetara_build.training.kernels.lora import attach
from meetara_build.training.kernels.packed import Loss, PackedModel
from meetara_build.training.loop import Action, History, Progress, Settings, train

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
LORA = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}
SETTINGS = Settings(
    epochs=3, batch_tokens=48, learning_rate=5e-3, seed=7, schedule="constant", warmup_share=0.0
)
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


class Killed(Exception):
    """Stands for a kill."""


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: weight.detach().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lasting(history: History) -> History:
    return replace(history, seconds=0.0, cpu_seconds=0.0, peak_memory_bytes=0)


def on_fault(action: Action | None) -> Callable[[Progress], Action | None]:
    """An observer that acts on faults alone."""
    return lambda progress: action if progress.fault else None


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sequence[Encoded]], Any]], None]:
    """Have every pass of training look at its records first: what that raises happens, what it
    gives replaces the loss."""
    plain = PackedModel.loss

    def inject(fault: Callable[[Sequence[Encoded]], float | None]) -> None:
        def loss(
            self: PackedModel, records: Sequence[Encoded], *, every_token: bool = False
        ) -> Loss:
            factor = fault(records) if torch.is_grad_enabled() else None
            made = plain(self, records, every_token=every_token)
            return made if factor is None else made._replace(total=made.total * factor)

        monkeypatch.setattr(PackedModel, "loss", loss)

    return inject


def too_large_for(tokens: int, error: Exception) -> Callable[[Sequence[Encoded]], None]:
    """A machine whose memory holds so many tokens."""

    def look(records: Sequence[Encoded]) -> None:
        if sum(len(record.ids) for record in records) > tokens:
            raise error

    return look


def poisoned(bad: Encoded) -> Callable[[Sequence[Encoded]], float | None]:
    """One record whose loss is no number."""
    return lambda records: math.nan if bad in records else None


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ALLOCATOR)],
    ids=repr,
)
def test_too_little_memory_halves_the_micro_batch_and_gives_the_same_adapter(
    error: Exception, tiny: Make, records: Records, inject: Any
) -> None:
    expected = attach(tiny(), LORA, seed=1)
    train(expected, records(20), records(4, seed=9), SETTINGS)

    inject(too_large_for(30, error))
    model, seen = attach(tiny(), LORA, seed=1), list[Progress]()

    def observe(progress: Progress) -> Action | None:
        seen.append(progress)
        return Action.HALVE_MICRO_BATCH if progress.fault else None

    history = train(model, records(20), records(4, seed=9), SETTINGS, observe=observe)
    for name, weight in trained(expected).items():
        torch.testing.assert_close(trained(model)[name], weight, rtol=1e-2, atol=2e-4, msg=name)
    assert history.actions == [(0, "halve_micro_batch")]
    assert history.micro_batch_tokens <= 24
    assert (seen[0].fault, seen[0].step, seen[0].micro_batch_tokens) == ("out_of_memory", 0, 48)
    assert math.isnan(seen[0].loss)
    assert [progress.step for progress in seen[1:]] == [point[0] for point in history.curve]


def test_what_fits_in_the_end_is_found_by_halving_again(
    tiny: Make, records: Records, inject: Any
) -> None:
    longest = max(len(record.ids) for record in records(20))
    inject(too_large_for(longest, MemoryError()))
    model = attach(tiny(), LORA, 1)
    history = train(
        model,
        records(20),
        [],
        replace(SETTINGS, batch_tokens=400),
        observe=on_fault(Action.HALVE_MICRO_BATCH),
    )
    assert len(history.actions) > 1
    assert {action for _, action in history.actions} == {"halve_micro_batch"}
    assert len(history.curve) == 3


def test_a_single_record_that_does_not_fit_is_named(
    tiny: Make, records: Records, inject: Any
) -> None:
    inject(too_large_for(20, MemoryError()))
    said = r"step \d+: out of memory: one record of 2[1-4] tokens does not fit: lower data.max_tokens, or use a smaller base"
    with pytest.raises(TrainingError, match=said):
        train(
            attach(tiny(), LORA, 1),
            records(20),
            [],
            SETTINGS,
            observe=on_fault(Action.HALVE_MICRO_BATCH),
        )


@pytest.mark.parametrize(
    "action", [None, Action.CHECKPOINT, Action.LOWER_LEARNING_RATE, Action.STOP, Action.ABORT]
)
def test_too_little_memory_is_an_error_where_nobody_helps(
    action: Action | None, tiny: Make, records: Records, inject: Any
) -> None:
    inject(too_large_for(30, MemoryError()))
    for observe in (None, on_fault(action)):
        with pytest.raises(
            TrainingError,
            match=r"step 1: out of memory: .* lower training.micro_batch_tokens, or use",
        ):
            train(attach(tiny(), LORA, 1), records(20), [], SETTINGS, observe=observe)


def test_other_errors_are_no_lack_of_memory(tiny: Make, records: Records, inject: Any) -> None:
    inject(too_large_for(30, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train(
            attach(tiny(), LORA, 1),
            records(20),
            [],
            SETTINGS,
            observe=on_fault(Action.HALVE_MICRO_BATCH),
        )
    assert not ran_out_of_memory(ValueError(ALLOCATOR))


def test_a_loss_that_is_no_number_is_rolled_back_and_its_batch_left_out(
    tiny: Make, records: Records, inject: Any
) -> None:
    several = records(20)
    inject(poisoned(several[3]))
    seen: list[Progress] = []

    def observe(progress: Progress) -> Action | None:
        seen.append(progress)
        return Action.ROLL_BACK if progress.fault else None

    model = attach(tiny(), LORA, 1)
    history = train(model, several, records(4, seed=9), SETTINGS, observe=observe)
    faults = [progress for progress in seen if progress.fault]
    assert [progress.fault for progress in faults] == ["not_finite"] * 3, (
        "the record comes once an epoch"
    )
    assert all(math.isnan(progress.loss) for progress in faults)
    assert history.actions == [(progress.step, "roll_back") for progress in faults]
    left_out = {progress.step + 1 for progress in faults}
    taken = [point[0] for point in history.curve]
    assert sorted({*taken, *left_out}) == list(range(1, faults[0].steps + 1))
    assert not left_out & set(taken)
    rates = {point[0]: point[3] for point in history.curve}
    assert [rates[step] for step in taken] == [
        5e-3 / 2 ** sum(out < step for out in left_out) for step in taken
    ]
    assert history.losses[3] == [None, None, None]
    assert all(weight.isfinite().all() for weight in trained(model).values())


def test_a_gradient_that_is_not_finite_is_rolled_back_too(tiny: Make, records: Records) -> None:
    model, passes = attach(tiny(), LORA, 1), [0]

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        passes[0] += 1
        return gradient * math.inf if passes[0] == 4 else gradient

    next(weight for name, weight in model.named_parameters() if "lora_B" in name).register_hook(
        spoil
    )
    seen: list[Progress] = []

    def observe(progress: Progress) -> Action | None:
        seen.append(progress)
        return Action.ROLL_BACK if progress.fault else None

    history = train(model, records(20), [], SETTINGS, observe=observe)
    assert history.actions == [(3, "roll_back")]
    fault = next(progress for progress in seen if progress.fault)
    assert not math.isfinite(fault.gradient_norm)
    assert math.isfinite(fault.loss)


def test_rolling_back_returns_to_the_best_weights(tiny: Make, records: Records) -> None:
    """Answers that training contradicts: the best validation is the first one, and the last step
    asks to go back."""
    chance = [Encoded(record.ids[::-1], record.mask) for record in records(6, seed=3)]
    settings = replace(SETTINGS, epochs=2, validations_per_epoch=1, learning_rate=2e-2, patience=9)
    model, kept = attach(tiny(), LORA, 1), dict[int, Any]()

    def observe(progress: Progress) -> Action | None:
        kept[progress.step] = trained(model)
        return Action.ROLL_BACK if progress.step == progress.steps - 1 else None

    history = train(model, records(12), chance, settings, observe=observe)
    best = history.best_step
    assert best < max(kept)
    assert same(trained(model), kept[best])
    last, before = history.curve[-1], history.curve[-2]
    assert last[3] == before[3] / 2


def test_without_validation_rolling_back_returns_to_the_start(tiny: Make, records: Records) -> None:
    model = attach(tiny(), LORA, 1)
    start = trained(model)
    train(
        model,
        records(12),
        [],
        SETTINGS,
        observe=lambda progress: Action.ROLL_BACK if progress.step == progress.steps else None,
    )
    assert same(trained(model), start)


def test_after_a_roll_back_the_optimizer_remembers_nothing(
    tiny: Make, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back at the start, the next batch gives what it would give to a training that begins with it
    at half the rate."""
    act = {4: Action.ROLL_BACK, 5: Action.STOP}
    rolled, plain = attach(tiny(), LORA, 1), attach(tiny(), LORA, 1)
    train(rolled, records(20), [], SETTINGS, observe=lambda progress: act.get(progress.step))

    steps, checks = schedule.plan(records(20), SETTINGS)
    monkeypatch.setattr(run, "plan", lambda *_: (steps[4:], checks))
    slower = replace(SETTINGS, learning_rate=SETTINGS.learning_rate / 2)
    train(plain, records(20), [], slower, observe=lambda progress: Action.STOP)
    assert same(trained(rolled), trained(plain))


def test_what_never_comes_right_is_an_error_in_the_end(
    tiny: Make, records: Records, inject: Any
) -> None:
    inject(lambda batch: math.nan)
    seen: list[Progress] = []

    def observe(progress: Progress) -> Action:
        seen.append(progress)
        return Action.ROLL_BACK

    with pytest.raises(TrainingError, match="step 9: the loss is nan"):
        train(attach(tiny(), LORA, 1), records(40), [], SETTINGS, observe=observe)
    assert len(seen) == 9


def test_an_observer_that_only_rolls_back_is_stopped(tiny: Make, records: Records) -> None:
    with pytest.raises(
        TrainingError, match="step 9: an observer rolls back for the 9th time: lower"
    ):
        train(
            attach(tiny(), LORA, 1),
            records(40),
            [],
            SETTINGS,
            observe=lambda progress: Action.ROLL_BACK,
        )


def guard(progress: Progress) -> Action | None:
    """What an agent would do: pure."""
    if progress.fault:
        return Action.ROLL_BACK if progress.fault == "not_finite" else Action.HALVE_MICRO_BATCH
    return Action.LOWER_LEARNING_RATE if len(progress.curve) == 7 else None


@pytest.mark.parametrize("killed_at", [4, 9, 14])
def test_a_run_with_faults_and_actions_that_is_killed_goes_on_to_the_same(
    killed_at: int,
    tiny: Make,
    records: Records,
    inject: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several, held_out = records(20), records(4, seed=9)
    memory, nan = too_large_for(40, MemoryError()), poisoned(several[3])

    def fault(batch: Sequence[Encoded]) -> float | None:
        memory(batch)
        return nan(batch)

    inject(fault)
    settings = replace(SETTINGS, checkpoint_seconds=0.0, schedule="cosine", warmup_share=0.2)
    model = attach(tiny(), LORA | {"dropout": 0.1}, seed=1)
    history, expected = train(model, several, held_out, settings, observe=guard), trained(model)
    assert {action for _, action in history.actions} == {
        "roll_back",
        "halve_micro_batch",
        "lower_learning_rate",
    }

    save, saved = checkpoint.save, [0]

    def save_until(*given: Any) -> None:
        save(*given)
        saved[0] += 1
        if saved[0] == killed_at:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save_until)
    with pytest.raises(Killed):
        train(
            attach(tiny(), LORA | {"dropout": 0.1}, 1), several, held_out, settings, tmp_path, guard
        )
    again = attach(tiny(), LORA | {"dropout": 0.1}, seed=1)
    assert lasting(train(again, several, held_out, settings, tmp_path, guard)) == lasting(history)
    assert same(trained(again), expected)


def test_a_damaged_checkpoint_starts_anew_and_ends_the_same(
    tiny: Make, records: Records, tmp_path: Path
) -> None:
    model = attach(tiny(), LORA, seed=1)
    history = train(model, records(20), records(4, seed=9), SETTINGS, observe=guard)

    def kill(progress: Progress) -> Action | None:
        if progress.step == 6:
            raise Killed
        return Action.CHECKPOINT

    with pytest.raises(Killed):
        train(attach(tiny(), LORA, 1), records(20), records(4, seed=9), SETTINGS, tmp_path, kill)
    path = tmp_path / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:-100] + b"x" * 100)
    again, seen = attach(tiny(), LORA, seed=1), list[int]()

    def observe(progress: Progress) -> Action | None:
        seen.append(progress.step)
        return guard(progress)

    assert lasting(
        train(again, records(20), records(4, seed=9), SETTINGS, tmp_path, observe)
    ) == lasting(history)
    assert seen[0] == 1
    assert same(trained(again), trained(model))


def test_each_record_s_loss_is_kept_as_it_comes_by(tiny: Make, records: Records) -> None:
    """Where nothing is learnt, it is the record's own loss, in every epoch."""
    several = [*records(6), Encoded([1, 2, 3], [False] * 3)]
    model = attach(tiny(), LORA, 1)
    with torch.no_grad():
        packed = PackedModel(model, several)
        alone = [packed.mean_loss([record])[0] for record in several[:-1]]
        packed.release()
    settings = replace(SETTINGS, epochs=2, learning_rate=0.0, micro_batch_tokens=24)
    history = train(model, several, [], settings)
    assert history.losses[:-1] == [[pytest.approx(loss, rel=1e-4)] * 2 for loss in alone]
    assert history.losses[-1] == [None, None], "a record without an answer is not trained on"
    counted = [record.completion_tokens for record in several[:-1]]
    mean = sum(
        loss[0] * count for loss, count in zip(history.losses, counted, strict=False) if loss[0]
    ) / sum(counted)
    steps = [point[1] for point in history.curve]
    assert min(steps) <= mean <= max(steps)


def test_epochs_that_were_not_trained_have_no_losses(tiny: Make, records: Records) -> None:
    history = train(attach(tiny(), LORA, 1), records(20), [], replace(SETTINGS, max_steps=3))
    came = [losses for losses in history.losses if losses[0] is not None]
    assert 0 < len(came) < 20
    assert all(losses[1:] == [None, None] for losses in history.losses)
