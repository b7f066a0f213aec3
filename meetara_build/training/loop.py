"""The training loop: steps over whole records, validation, early stopping, exact resume, live hooks."""

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meetara_build.errors import TrainingError
from meetara_build.training import checkpoint
from meetara_build.training.batches import batches, fill
from meetara_build.training.chat import Encoded
from meetara_build.training.lora import fuse
from meetara_build.training.packed import PackedModel
from meetara_build.training.settings import Action, History, Observer, Progress, Settings

__all__ = ["Action", "History", "Observer", "Progress", "Settings", "evaluate", "train"]

EVALUATION_TOKENS = 2048
"""Tokens in one forward pass without gradients."""


def train(
    model: nn.Module,
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    settings: Settings,
    checkpoint_folder: Path | None = None,
    observe: Observer | None = None,
) -> History:
    """Train whatever parameters of ``model`` require a gradient; leaves it with the best weights by validation loss.

    The same model, data, settings and number of threads give the same weights, also when a run was interrupted and
    goes on from ``checkpoint_folder``. Without validation records the last weights stay.

    Raises:
        TrainingError: nothing to train or to learn from, a loss or gradient that is not finite, or an observer's abort.
    """
    run = _Run(model, training, validation, settings, checkpoint_folder, observe)
    try:
        return run.go()
    finally:
        run.packed.release()


@torch.no_grad()
def evaluate(model: nn.Module, examples: Sequence[Encoded], *, every_token: bool = False) -> tuple[float, int]:
    """Mean cross-entropy in nats over the tokens that count, and how many they are; the model's mode stays.

    Raises:
        TrainingError: no token counts.
    """
    packed = PackedModel(model, examples)
    try:
        return _evaluate(packed, examples, every_token)
    finally:
        packed.release()


@torch.no_grad()
def _evaluate(model: PackedModel, examples: Sequence[Encoded], every_token: bool) -> tuple[float, int]:
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
    was_training = model.inner.training
    model.inner.eval()
    total, count = 0.0, 0
    for run in fill(order, examples, EVALUATION_TOKENS):
        loss, tokens = model.loss([examples[index] for index in run], every_token=every_token)
        total, count = total + loss.item(), count + tokens
    model.inner.train(was_training)
    if not count:
        raise TrainingError("validation: no token counts: give records with an answer")
    return total / count, count


class _Run:
    """One run of ``train``: what it is given, what it plans, and what changes from step to step."""

    def __init__(
        self,
        model: nn.Module,
        training: Sequence[Encoded],
        validation: Sequence[Encoded],
        settings: Settings,
        folder: Path | None,
        observe: Observer | None,
    ) -> None:
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        _check(self.weights, training, settings)
        self.model, self.training, self.validation = model, training, validation
        self.settings, self.folder, self.observe = settings, folder, observe
        self.plan, self.checks = _plan(training, settings)
        self.name = checkpoint.run_name(model, _identity(training, validation, settings)) if folder else ""
        fuse(model)
        self.packed = PackedModel(model, training)
        self.packed.rearrange_head()
        self.optimizer = _optimizer(self.weights, settings)
        self.step = 0
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.best_loss = math.inf
        self.stale = 0
        self.stopped = False
        self.rate_factor = 1.0
        self.micro_tokens = settings.micro_batch_tokens or settings.batch_tokens
        self.started = self.saved = time.monotonic()
        self.cpu_started = time.process_time()

    def go(self) -> History:
        """All steps that are left, then the best weights."""
        torch.manual_seed(self.settings.seed)
        if not self._resume() and self.validation:
            self.history = replace(self.history, validation_before=self._validate())
        self.model.train()
        while self.step < len(self.plan) and not self.stopped:
            self._take_step()
        if self.best:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(self.best[name])
            self.history = replace(self.history, validation_after=self.best_loss)
        else:
            self.history = replace(self.history, best_step=self.step)
        self.model.eval()
        return self._timed()

    def _take_step(self) -> None:
        epoch, batch = self.plan[self.step]
        rate = self.rate_factor * self.settings.learning_rate * _schedule(self.step, len(self.plan), self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, counted = self._gradients(batch)
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), self.settings.clip_norm or math.inf).item()
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the gradient is {norm}: lower training.learning_rate, or mend the data"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        checked = self._check_validation() if self.step in self.checks else None
        self.history = replace(
            self.history,
            curve=[*self.history.curve, (self.step, loss, checked, rate)],
            tokens=self.history.tokens + sum(len(self.training[index].ids) for index in batch),
            completion_tokens=self.history.completion_tokens + counted,
        )
        self._listen(epoch, norm)
        if self.folder and time.monotonic() - self.saved >= self.settings.checkpoint_seconds:
            self._save()

    def _gradients(self, batch: Sequence[int]) -> tuple[float, int]:
        """Gradients of the batch's mean loss over counted tokens, made a micro-batch at a time."""
        every = self.settings.loss_on_prompt
        counted = sum(_counted(self.training[index], every) for index in batch)
        total = 0.0
        for part in fill(batch, self.training, self.micro_tokens):
            loss, tokens = self.packed.loss([self.training[index] for index in part], every_token=every)
            total += loss.item()
            if not math.isfinite(total):
                raise TrainingError(
                    f"step {self.step + 1}: the loss is {total}: lower training.learning_rate, or mend the data"
                )
            if tokens:
                (loss / counted).backward()  # type: ignore[no-untyped-call]
        return total / counted, counted

    def _validate(self) -> float:
        return _evaluate(self.packed, self.validation, self.settings.loss_on_prompt)[0]

    def _check_validation(self) -> float | None:
        if not self.validation:
            return None
        loss = self._validate()
        if loss < self.best_loss:
            self.best_loss, self.stale = loss, 0
            self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
            self.history = replace(self.history, best_step=self.step)
        else:
            self.stale += 1
            if self.stale >= self.settings.patience and self.step < len(self.plan):
                self.stopped = True
                self.history = replace(self.history, stopped_early=True)
        return loss

    def _listen(self, epoch: int, norm: float) -> None:
        """Show the observer the step just taken, and do as it says."""
        if self.observe is None:
            return
        _, loss, checked, rate = self.history.curve[-1]
        action = self.observe(
            Progress(
                step=self.step,
                steps=len(self.plan),
                epoch=epoch,
                loss=loss,
                validation_loss=checked,
                learning_rate=rate,
                gradient_norm=norm,
                micro_batch_tokens=self.micro_tokens,
                completion_tokens=self.history.completion_tokens,
                seconds=self._timed().seconds,
                curve=self.history.curve,
            )
        )
        if action is None:
            return
        match Action(action):
            case Action.STOP:
                self.stopped = True
                self.history = replace(self.history, stopped_early=True)
            case Action.LOWER_LEARNING_RATE:
                self.rate_factor /= 2
            case Action.HALVE_MICRO_BATCH:
                self.micro_tokens = max(1, self.micro_tokens // 2)
            case Action.CHECKPOINT:
                self._save()
            case Action.ABORT:
                raise TrainingError(f"step {self.step}: an observer aborted training: its reason is in the run's log")

    def _save(self) -> None:
        if self.folder is None:
            return
        tensors: dict[str, Tensor] = {f"weight/{name}": weight for name, weight in self.weights.items()}
        tensors |= {f"best/{name}": weight for name, weight in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in moments.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.packed.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.packed.device)
        state = {
            "step": self.step,
            "history": asdict(self._timed()),
            "best_loss": self.best_loss if self.best else None,
            "stale": self.stale,
            "stopped": self.stopped,
            "rate_factor": self.rate_factor,
            "micro_tokens": self.micro_tokens,
        }
        checkpoint.save(self.folder, self.name, checkpoint.Checkpoint(tensors, state))
        self.saved = time.monotonic()

    def _resume(self) -> bool:
        """Go on where a killed run of the same name stopped; false if there is none."""
        found = checkpoint.load(self.folder, self.name) if self.folder else None
        if found is None:
            return False
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in found.tensors.items():
            kind, rest = name.split("/", 1)
            if kind == "weight":
                self.weights[rest].data.copy_(value)
            elif kind == "best":
                self.best[rest] = value.to(self.packed.device)
            elif kind == "optimizer":
                index, key = rest.split("/")
                moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(found.tensors["random/cpu"])
        if "random/cuda" in found.tensors:
            torch.cuda.set_rng_state(found.tensors["random/cuda"], self.packed.device)
        state = found.state
        past = state["history"]
        self.history = History(**{**past, "curve": [tuple(point) for point in past["curve"]]})
        self.step, self.stale, self.stopped = state["step"], state["stale"], state["stopped"]
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.rate_factor, self.micro_tokens = state["rate_factor"], state["micro_tokens"]
        self.started -= self.history.seconds
        self.cpu_started -= self.history.cpu_seconds
        return True

    def _timed(self) -> History:
        cuda = self.packed.device.type == "cuda"
        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        memory = torch.cuda.max_memory_allocated() if cuda else resident
        return replace(
            self.history,
            seconds=time.monotonic() - self.started,
            cpu_seconds=time.process_time() - self.cpu_started,
            peak_memory_bytes=max(memory, self.history.peak_memory_bytes),
        )


def _check(weights: dict[str, nn.Parameter], training: Sequence[Encoded], settings: Settings) -> None:
    if not weights:
        raise TrainingError("no parameter of the model requires a gradient: attach an adapter first")
    if not sum(_counted(record, settings.loss_on_prompt) for record in training):
        raise TrainingError(
            f"zero trainable tokens in {len(training)} training records: every answer is empty or cut off; "
            "look at the dataset's train.jsonl and at max_tokens"
        )


def _counted(record: Encoded, every_token: bool) -> int:
    return max(0, len(record.ids) - 1) if every_token else record.completion_tokens


def _plan(training: Sequence[Encoded], settings: Settings) -> tuple[list[tuple[int, list[int]]], set[int]]:
    """(epoch, records) of every step, and after which steps to validate."""
    plan: list[tuple[int, list[int]]] = []
    checks: set[int] = set()
    usable = [index for index, record in enumerate(training) if _counted(record, settings.loss_on_prompt)]
    records = [training[index] for index in usable]
    for epoch in range(settings.epochs):
        steps = batches(records, settings.batch_tokens, settings.seed, epoch)
        parts = max(1, settings.validations_per_epoch)
        checks |= {len(plan) + round(len(steps) * part / parts) for part in range(1, parts + 1)}
        plan += [(epoch, [usable[index] for index in step]) for step in steps]
    plan = plan[: settings.max_steps]
    return plan, {check for check in checks if 0 < check <= len(plan)} | {len(plan)}


def _identity(training: Sequence[Encoded], validation: Sequence[Encoded], settings: Settings) -> dict[str, Any]:
    """What else a run depends on; when it saves a checkpoint does not matter."""
    records = [[[record.ids, record.mask] for record in part] for part in (training, validation)]
    return {"settings": asdict(replace(settings, checkpoint_seconds=0.0)), "records": records}


def _optimizer(weights: dict[str, nn.Parameter], settings: Settings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); vectors (norms, biases) are never decayed."""
    matrices = [weight for weight in weights.values() if weight.dim() > 1]
    vectors = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def _schedule(step: int, steps: int, settings: Settings) -> float:
    """Share of the learning rate at ``step`` (from 0): linear warm-up, then half a cosine to zero, or constant."""
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
