"""Training: the same bytes every time, also after a kill; a plain loop's numbers; live actions;
faults as errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from meetara_build.errors import TrainingError
from meetara_build.training.batches import batches
from meetara_build.training.chat import Encoded
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import Action, History, Progress, Settings, evaluate, train

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
SETTINGS = Settings(epochs=3, batch_tokens=48, learning_rate=5e-3, seed=7)


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
    """Without what differs from run to run."""
    return replace(history, seconds=0.0, cpu_seconds=0.0, peak_memory_bytes=0)


def test_the_same_run_gives_the_same_weights_and_curve(tiny: Make, records: Records) -> None:
    results = []
    for _ in range(2):
        model = attach(tiny(), LORA, seed=1)
        history = train(model, records(20), records(4, seed=9), SETTINGS)
        results.append((trained(model), lasting(history)))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_it_learns(tiny: Make, records: Records) -> None:
    settings = replace(SETTINGS, epochs=4, learning_rate=2e-2)
    history = train(attach(tiny(), LORA, seed=1), records(40), records(8, seed=9), settings)
    assert history.validation_before is not None
    assert history.validation_after is not None
    assert history.validation_after < 0.9 * history.validation_before
    assert history.tokens == 4 * sum(len(record.ids) for record in records(40))
    assert history.completion_tokens == 4 * sum(record.completion_tokens for record in records(40))


def test_it_equals_a_plain_loop_over_padded_batches(tiny: Make, records: Records) -> None:
    """Transformers and PEFT as they are: padded batches, an attention mask, labels of -100,
    AdamW."""
    examples = records(16)
    settings = replace(SETTINGS, epochs=1, warmup_share=0.0, schedule="constant", weight_decay=0.01)
    ours = attach(tiny(), LORA, seed=1)
    history = train(ours, examples, [], settings)

    plain = attach(tiny(), LORA, seed=1).train()
    weights = [weight for weight in plain.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.01)
    losses = []
    for batch in batches(examples, settings.batch_tokens, settings.seed, 0):
        rows = [examples[index] for index in batch]
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
        labels = [
            [token if said else -100 for token, said in zip(r.ids, r.mask, strict=True)]
            for r in rows
        ]
        padded = torch.tensor([line + [-100] * (width - len(line)) for line in labels])
        loss = plain(input_ids=ids, attention_mask=mask, labels=padded).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    assert [point[1] for point in history.curve] == pytest.approx(losses, rel=1e-4)
    reference = trained(plain)
    for name, weight in trained(ours).items():
        torch.testing.assert_close(weight, reference[name], rtol=1e-2, atol=1e-4, msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_killed_run_goes_on_to_the_same_weights(
    dropout: float, tiny: Make, records: Records, tmp_path: Path
) -> None:
    lora = LORA | {"dropout": dropout}
    model = attach(tiny(), lora, seed=1)
    expected = train(model, records(20), records(4, seed=9), SETTINGS), trained(model)

    def kill(progress: Progress) -> Action | None:
        if progress.step == 8:
            raise Killed
        return Action.CHECKPOINT if progress.step == 5 else None

    with pytest.raises(Killed):
        train(
            attach(tiny(), lora, seed=1), records(20), records(4, seed=9), SETTINGS, tmp_path, kill
        )
    model = attach(tiny(), lora, seed=1)
    seen: list[int] = []
    history = train(
        model,
        records(20),
        records(4, seed=9),
        SETTINGS,
        tmp_path,
        lambda progress: seen.append(progress.step),
    )
    assert seen[0] == 6
    assert same(trained(model), expected[1])
    assert lasting(history) == lasting(expected[0])


def test_full_training_of_a_small_model_resumes_too(
    tiny: Make, records: Records, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, loss_on_prompt=True, learning_rate=1e-3)
    model = tiny()
    history = train(model, records(20), [], settings)
    assert history.curve[-1][1] < history.curve[0][1]
    assert history.completion_tokens == 3 * sum(len(record.ids) - 1 for record in records(20))

    def kill(progress: Progress) -> Action | None:
        if progress.step == 4:
            raise Killed
        return Action.CHECKPOINT

    with pytest.raises(Killed):
        train(tiny(), records(20), [], settings, tmp_path, kill)
    again = tiny()
    train(again, records(20), [], settings, tmp_path)
    assert same(trained(again), trained(model))


def test_a_run_that_had_finished_when_it_was_killed_gives_the_same_again(
    tiny: Make, records: Records, tmp_path: Path
) -> None:
    model, again = attach(tiny(), LORA, seed=1), attach(tiny(), LORA, seed=1)
    first = train(
        model, records(), records(3, seed=9), SETTINGS, tmp_path, lambda progress: Action.CHECKPOINT
    )
    second = train(again, records(), records(3, seed=9), SETTINGS, tmp_path)
    assert same(trained(model), trained(again))
    assert lasting(first) == lasting(second)


@pytest.mark.parametrize("change", ["seed", "data", "base"])
def test_another_runs_checkpoint_is_not_taken_up(
    change: str, tiny: Make, records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(
        attach(tiny(), LORA, 1),
        records(),
        [],
        SETTINGS,
        tmp_path,
        lambda progress: Action.CHECKPOINT,
    )
    base = tiny()
    if change == "base":
        base.get_input_embeddings().weight.data[:, 0] += 1
    seen: list[int] = []
    train(
        attach(base, LORA, 1),
        records(seed=5 if change == "data" else 0),
        [],
        replace(SETTINGS, seed=8) if change == "seed" else SETTINGS,
        tmp_path,
        lambda progress: seen.append(progress.step),
    )
    assert seen[0] == 1
    assert "another base, data or configuration" in caplog.text


def test_checkpointed_gradients_change_memory_not_results(tiny: Make, records: Records) -> None:
    results, kept = [], []
    for checkpointing in (False, True):
        model, saved = attach(tiny(), {**LORA, "dropout": 0.1}, seed=1), [0]

        def pack(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved[0] += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            train(model, records(20), [], replace(SETTINGS, gradient_checkpointing=checkpointing))
        results.append(trained(model))
        kept.append(saved[0])
        assert not model.get_base_model().is_activation_checkpointing
    assert same(*results)
    assert kept[1] < 0.5 * kept[0]


def test_micro_batches_change_memory_not_results(tiny: Make, records: Records) -> None:
    whole, parts = attach(tiny(), LORA, seed=1), attach(tiny(), LORA, seed=1)
    train(whole, records(20), [], SETTINGS)
    train(parts, records(20), [], replace(SETTINGS, micro_batch_tokens=24))
    for name, weight in trained(whole).items():
        torch.testing.assert_close(trained(parts)[name], weight, rtol=1e-2, atol=2e-4, msg=name)


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(
    tiny: Make, records: Records
) -> None:
    """Answers that training contradicts: validation gets worse with every step."""
    chance = [Encoded(record.ids[::-1], record.mask) for record in records(6, seed=3)]
    settings = replace(SETTINGS, epochs=50, patience=2, learning_rate=2e-2, schedule="constant")
    model = attach(tiny(), LORA, seed=1)
    history = train(model, records(12), chance, settings)
    checked = {step: loss for step, _, loss, _ in history.curve if loss is not None}
    assert history.stopped_early
    assert history.best_step == min(checked, key=lambda step: checked[step])
    assert len([step for step in checked if step > history.best_step]) == 2
    assert evaluate(model, chance)[0] == pytest.approx(checked[history.best_step], rel=1e-5)
    assert history.validation_after == checked[history.best_step]


def test_every_step_is_shown(tiny: Make, records: Records) -> None:
    seen: list[Progress] = []
    history = train(
        attach(tiny(), LORA, 1), records(20), records(3, seed=9), SETTINGS, observe=seen.append
    )
    assert [progress.step for progress in seen] == list(range(1, len(history.curve) + 1))
    assert [progress.validation_loss for progress in seen] == [point[2] for point in history.curve]
    assert {progress.validation_before for progress in seen} == {history.validation_before}
    assert sum(progress.validation_loss is not None for progress in seen) == 6
    assert {progress.epoch for progress in seen} == {0, 1, 2}
    assert all(progress.gradient_norm > 0 for progress in seen)


def test_stop_ends_after_the_step(tiny: Make, records: Records) -> None:
    history = train(
        attach(tiny(), LORA, 1),
        records(20),
        [],
        SETTINGS,
        observe=lambda p: Action.STOP if p.step == 2 else None,
    )
    assert len(history.curve) == 2
    assert history.stopped_early


def test_lower_learning_rate_halves_it_from_the_next_step(tiny: Make, records: Records) -> None:
    settings = replace(SETTINGS, schedule="constant", warmup_share=0.0)
    history = train(
        attach(tiny(), LORA, 1),
        records(20),
        [],
        settings,
        observe=lambda p: Action.LOWER_LEARNING_RATE if p.step == 2 else None,
    )
    rates = [point[3] for point in history.curve]
    assert rates[:2] == [5e-3, 5e-3]
    assert set(rates[2:]) == {2.5e-3}


def test_halve_micro_batch_halves_tokens_in_memory(tiny: Make, records: Records) -> None:
    seen: list[int] = []

    def observe(progress: Progress) -> Action | None:
        seen.append(progress.micro_batch_tokens)
        return Action.HALVE_MICRO_BATCH if progress.step <= 2 else None

    train(attach(tiny(), LORA, 1), records(20), [], SETTINGS, observe=observe)
    assert seen[:4] == [48, 24, 12, 12]


def test_abort_is_an_error(tiny: Make, records: Records) -> None:
    with pytest.raises(TrainingError, match="step 1: an observer aborted"):
        train(
            attach(tiny(), LORA, 1), records(), [], SETTINGS, observe=lambda progress: Action.ABORT
        )


def test_an_unknown_action_is_refused(tiny: Make, records: Records) -> None:
    with pytest.raises(ValueError, match="explode"):
        train(attach(tiny(), LORA, 1), records(), [], SETTINGS, observe=lambda progress: "explode")  # type: ignore


def test_no_answer_anywhere_is_an_error(tiny: Make, records: Records) -> None:
    silent = [Encoded(record.ids, [False] * len(record.ids)) for record in records()]
    with pytest.raises(TrainingError, match="zero trainable tokens in 12"):
        train(attach(tiny(), LORA, 1), silent, [], SETTINGS)


def test_a_model_without_trainable_weights_is_an_error(tiny: Make, records: Records) -> None:
    with pytest.raises(TrainingError, match="attach an adapter"):
        train(tiny().requires_grad_(False), records(), [], SETTINGS)


def test_a_loss_that_is_not_a_number_is_an_error(tiny: Make, records: Records) -> None:
    base = tiny()
    base.get_input_embeddings().weight.data[5] = float("nan")
    with pytest.raises(TrainingError, match="the loss is nan"):
        train(
            attach(base, LORA, 1), [Encoded([1, 5, 7, 9], [False, False, True, True])], [], SETTINGS
        )


def test_a_gradient_that_is_not_finite_is_an_error(tiny: Make, records: Records) -> None:
    model = attach(tiny(), LORA, 1)
    weight = next(weight for name, weight in model.named_parameters() if "lora_B" in name)
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="the gradient is"):
        train(model, records(), [], SETTINGS)


def test_the_schedule_warms_up_and_falls_to_zero(tiny: Make, records: Records) -> None:
    settings = replace(SETTINGS, warmup_share=0.25)
    rates = [point[3] for point in train(attach(tiny(), LORA, 1), records(20), [], settings).curve]
    top = rates.index(max(rates))
    assert max(rates) == 5e-3
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top + 1 :] == sorted(rates[top + 1 :], reverse=True)
    assert rates[-1] < 0.1 * 5e-3


def test_max_steps_ends_an_epoch_early(tiny: Make, records: Records) -> None:
    history = train(
        attach(tiny(), LORA, 1), records(20), records(2, seed=9), replace(SETTINGS, max_steps=3)
    )
    assert len(history.curve) == 3
    assert history.curve[-1][2] is not None


def test_evaluation_equals_the_models_own_loss(
    architecture: str, tiny: Make, records: Records
) -> None:
    model, examples = tiny(architecture), records(9)
    total = count = 0.0
    with torch.no_grad():
        for record in examples:
            ids = torch.tensor([record.ids])
            labels = torch.tensor(
                [[t if said else -100 for t, said in zip(record.ids, record.mask, strict=True)]]
            )
            total += model(input_ids=ids, labels=labels).loss.item() * record.completion_tokens
            count += record.completion_tokens
    loss, tokens = evaluate(model, examples)
    assert tokens == count
    assert loss == pytest.approx(total / count, rel=1e-4)
