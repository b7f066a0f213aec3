"""One training: steps over whole records, validation, early stopping, exact resume, what observers
ask for."""

import gc
import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from meetara_build.errors import DivergedError, TrainingError
from meetara_build.training import checkpoint, faults
from meetara_build.training.batches import fill
from meetara_build.training.chat import Encoded
from meetara_build.training.computation import Computation
from meetara_build.training.faults import StepFault
from meetara_build.training.schedule import count_tokens, optimizer, plan, share_of_rate
from meetara_build.training.settings import Action, History, Observer, Progress, Settings
from meetara_build.training.state import Kept, State, copy_tensors, pack, put, trainable, unpack

MOST_ROLL_BACKS = 8
"""In one training: what goes wrong more often does not come right."""


class _Gradients(NamedTuple):
    """What a batch gave: its mean loss over the counted tokens, how many those are, the gradient's
    norm, each record's loss."""

    loss: float
    counted: int
    norm: float
    by_record: list[float]


class Run:
    """One training: what it is given, what it plans, and what changes from step to step."""

    def __init__(
        self,
        model: nn.Module,
        packed: Computation,
        training: Sequence[Encoded],
        validation: Sequence[Encoded],
        settings: Settings,
        folder: Path | None,
        observe: Observer | None,
    ) -> None:
        self.model, self.packed, self.training, self.validation = (
            model,
            packed,
            training,
            validation,
        )
        self.settings, self.folder, self.observe = settings, folder, observe
        self.weights = trainable(model)
        self.first = copy_tensors(self.weights)
        self.plan, self.checks = plan(training, settings)
        self.name = (
            checkpoint.run_name(
                model, {"origin": packed.origin, **_identity(training, validation, settings)}
            )
            if folder
            else ""
        )
        self.optimizer = optimizer(self.weights, settings)
        self.state = State(settings.micro_batch_tokens or settings.batch_tokens)
        self.kept = Kept(
            torch.full((len(training), settings.epochs), math.nan, dtype=torch.float64)
        )
        self.started = self.saved = time.monotonic()
        self.cpu_started = time.process_time()

    def go(self) -> History:
        """All steps that are left, then the best weights."""
        self._begin()
        self._steps_until(len(self.plan))
        if self.kept.best:
            put(self.weights, self.kept.best)
            self._note(validation_after=self.state.best_loss)
        else:
            self._note(
                best_step=self.state.step,
                validation_after=self._validate() if self.validation else None,
            )
        self.model.eval()
        losses = [
            [loss if math.isfinite(loss) else None for loss in row]
            for row in self.kept.losses.tolist()
        ]
        return replace(
            self._time(),
            losses=losses,
            micro_batch_tokens=self.state.micro_tokens,
            computed=self.packed.describe(),
        )

    def go_for(self, steps: int) -> float:
        """The first ``steps`` alone; the validation loss after them, of which nothing else in the
        run knows."""
        self._begin()
        self._steps_until(steps)
        if self.state.measured is None:
            self.state.measured = self._validate()
            self._save()
        return self.state.measured

    def _begin(self) -> None:
        """Go on where a killed run of the same name stopped, or measure where this one starts."""
        torch.manual_seed(self.settings.seed)
        found = checkpoint.load(self.folder, self.name) if self.folder else None
        if found is not None:
            self.state, self.kept = unpack(found, self.weights, self.optimizer, self.packed.device)
            self.started -= self.state.history.seconds
            self.cpu_started -= self.state.history.cpu_seconds
        elif self.validation:
            self._note(validation_before=self._validate())
        self.model.train()

    def _steps_until(self, end: int) -> None:
        while self.state.step < end and not self.state.stopped:
            fault = self._step()
            if fault is not None:
                self._recover(fault)
            if self.folder and time.monotonic() - self.saved >= self.settings.checkpoint_seconds:
                self._save()

    def _step(self) -> StepFault | None:
        """Learn from the next batch; or why that failed, with nothing changed."""
        epoch, batch = self.plan[self.state.step]
        try:
            made = self._gradients(batch)
        except StepFault as fault:
            return fault.with_traceback(None)  # which holds on to tensors
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.kept.losses[batch, epoch] = torch.tensor(made.by_record, dtype=torch.float64)
        checked = self._check_validation() if self.state.step in self.checks else None
        self._note(
            curve=[*self.state.history.curve, (self.state.step, made.loss, checked, rate)],
            tokens=self.state.history.tokens
            + sum(len(self.training[index].ids) for index in batch),
            completion_tokens=self.state.history.completion_tokens + made.counted,
        )
        self._do(self._ask(epoch, made.loss, made.norm, rate, checked))
        return None

    def _gradients(self, batch: Sequence[int]) -> _Gradients:
        """Gradients of the batch's mean loss over counted tokens, made a micro-batch at a time.

        Raises:
            StepFault: memory ran out, or the loss or the gradient is not finite.
        """
        counts = [
            count_tokens(self.training[index], self.settings.loss_on_prompt) for index in batch
        ]
        total, sums = 0.0, list[float]()
        for part in fill(batch, self.training, self.state.micro_tokens):
            loss, by_record = self._micro_batch(part, sum(counts))
            total, sums = total + loss, sums + by_record
            if not math.isfinite(total):
                raise faults.not_finite(self.state.step + 1, "loss", total, total / sum(counts))
        mean, clip = total / sum(counts), self.settings.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), clip).item()
        if not math.isfinite(norm):
            raise faults.not_finite(self.state.step + 1, "gradient", norm, mean, norm)
        return _Gradients(
            mean, sum(counts), norm, [one / count for one, count in zip(sums, counts, strict=True)]
        )

    def _micro_batch(self, part: Sequence[int], counted_tokens: int) -> tuple[float, list[float]]:
        """Add some records' share of the batch's gradients; their summed loss, and each one's."""
        records = [self.training[index] for index in part]
        try:
            return self.packed.backward(
                records, counted_tokens, every_token=self.settings.loss_on_prompt
            )
        except (MemoryError, RuntimeError) as error:
            if not faults.ran_out_of_memory(error):
                raise
        raise faults.too_large(
            self.state.step + 1, len(part), sum(len(record.ids) for record in records)
        )

    def _recover(self, fault: StepFault) -> None:
        """Let go of what the failed step holds, and do as the observer says.

        Raises:
            TrainingError: it says nothing that helps.
        """
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.packed.device.type == "cuda":
            torch.cuda.empty_cache()
        action = self._ask(
            self.plan[self.state.step][0], fault.loss, fault.norm, self._rate(), fault=fault.kind
        )
        if action == Action.HALVE_MICRO_BATCH and fault.records > 1:
            self._remember(action)
            self.state.micro_tokens = fault.tokens // 2
        elif action == Action.ROLL_BACK and self.state.roll_backs < MOST_ROLL_BACKS:
            self._remember(action)
            self._roll_back()
            self.state.step += 1
        else:
            raise fault.error from None

    def _roll_back(self) -> None:
        """To the best weights so far, or the first, with half the learning rate and no memory of
        the way here."""
        if self.state.roll_backs == MOST_ROLL_BACKS:
            raise DivergedError(
                f"step {self.state.step}: an observer rolls back for the {MOST_ROLL_BACKS + 1}th "
                "time: lower training.learning_rate, or take it from training.observers"
            )
        put(self.weights, self.kept.best or self.first)
        self.optimizer.state.clear()
        self.state.roll_backs += 1
        self.state.rate_factor /= 2
        self.state.stale = 0

    def _rate(self) -> float:
        planned = share_of_rate(self.state.step, len(self.plan), self.settings)
        return self.state.rate_factor * self.settings.learning_rate * planned

    def _validate(self) -> float:
        return self.packed.mean_loss(self.validation, every_token=self.settings.loss_on_prompt)[0]

    def _check_validation(self) -> float | None:
        if not self.validation:
            return None
        loss = self._validate()
        if loss < self.state.best_loss:
            self.state.best_loss, self.state.stale = loss, 0
            self.kept.best = copy_tensors(self.weights)
            self._note(best_step=self.state.step)
        else:
            self.state.stale += 1
            if self.state.stale >= self.settings.patience and self.state.step < len(self.plan):
                self._stop()
        return loss

    def _ask(
        self,
        epoch: int,
        loss: float,
        norm: float,
        rate: float,
        checked: float | None = None,
        fault: str | None = None,
    ) -> Action | None:
        """What the observer says to the step just taken, or to one that failed."""
        if self.observe is None:
            return None
        history = self._time()
        progress = Progress(
            step=self.state.step,
            steps=len(self.plan),
            epoch=epoch,
            loss=loss,
            validation_loss=checked,
            learning_rate=rate,
            gradient_norm=norm,
            micro_batch_tokens=self.state.micro_tokens,
            completion_tokens=history.completion_tokens,
            seconds=history.seconds,
            curve=history.curve,
            fault=fault,
            validation_before=history.validation_before,
        )
        action = self.observe(progress)
        return None if action is None else Action(action)

    def _do(self, action: Action | None) -> None:
        """What an observer asks for after a step that was taken."""
        if action not in (None, Action.CHECKPOINT):
            self._remember(action)
        match action:
            case Action.STOP:
                self._stop()
            case Action.LOWER_LEARNING_RATE:
                self.state.rate_factor /= 2
            case Action.HALVE_MICRO_BATCH:
                self.state.micro_tokens = max(1, self.state.micro_tokens // 2)
            case Action.ROLL_BACK:
                self._roll_back()
            case Action.CHECKPOINT:
                self._save()
            case Action.ABORT:
                raise TrainingError(
                    f"step {self.state.step}: an observer aborted training: its reason is in the "
                    "run's log"
                )

    def _remember(self, action: Action) -> None:
        self._note(actions=[*self.state.history.actions, (self.state.step, str(action))])

    def _stop(self) -> None:
        self.state.stopped = True
        self._note(stopped_early=True)

    def _note(self, **values: Any) -> None:
        self.state.history = replace(self.state.history, **values)

    def _save(self) -> None:
        if self.folder is None:
            return
        self.state.history = self._time()
        kept = pack(self.state, self.kept, self.weights, self.optimizer, self.packed.device)
        checkpoint.save(self.folder, self.name, kept)
        self.saved = time.monotonic()

    def _time(self) -> History:
        """The history until now."""
        cuda = self.packed.device.type == "cuda"
        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        memory = torch.cuda.max_memory_allocated() if cuda else resident
        return replace(
            self.state.history,
            seconds=time.monotonic() - self.started,
            cpu_seconds=time.process_time() - self.cpu_started,
            peak_memory_bytes=max(memory, self.state.history.peak_memory_bytes),
        )


def _identity(
    training: Sequence[Encoded], validation: Sequence[Encoded], settings: Settings
) -> dict[str, object]:
    """What else a run depends on; when it saves a checkpoint does not matter."""
    records = [
        [[record.ids, record.mask, sorted(record.never)] for record in part]
        for part in (training, validation)
    ]
    return {"settings": asdict(replace(settings, checkpoint_seconds=0.0)), "records": records}
