"""What a run will do: the records of every step, when to validate, how fast to learn, and with
which optimizer."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from meetara_build.training.batches import batches
from meetara_build.training.chat import Encoded
from meetara_build.training.settings import Settings


def count_tokens(record: Encoded, every_token: bool) -> int:
    """How many of a record's tokens the loss counts."""
    return (
        max(0, len(record.ids) - 1 - len(record.never - {0}))
        if every_token
        else record.completion_tokens
    )


def plan(
    training: Sequence[Encoded], settings: Settings
) -> tuple[list[tuple[int, list[int]]], set[int]]:
    """(epoch, records) of every step, and after which steps to validate."""
    steps: list[tuple[int, list[int]]] = []
    checks: set[int] = set()
    usable = [
        index
        for index, record in enumerate(training)
        if count_tokens(record, settings.loss_on_prompt)
    ]
    records = [training[index] for index in usable]
    for epoch in range(settings.epochs):
        of_epoch = batches(records, settings.batch_tokens, settings.seed, epoch)
        parts = max(1, settings.validations_per_epoch)
        checks |= {len(steps) + round(len(of_epoch) * part / parts) for part in range(1, parts + 1)}
        steps += [(epoch, [usable[index] for index in step]) for step in of_epoch]
    steps = steps[: settings.max_steps]
    return steps, {check for check in checks if 0 < check <= len(steps)} | {len(steps)}


def optimizer(weights: Mapping[str, nn.Parameter], settings: Settings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); vectors (norms, biases) are never decayed."""
    matrices = [weight for weight in weights.values() if weight.dim() > 1]
    vectors = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.learning_rate, fused=True
    )


def share_of_rate(step: int, steps: int, settings: Settings) -> float:
    """Share of the learning rate at ``step`` (from 0): linear warm-up, then half a cosine to zero,
    or constant."""
    warmup = math.ceil(settings.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
