"""Proofs at a trainer's start: slots give what the model gives, and company changes no bit."""

import math
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from meetara_build.training.chat import Encoded
from meetara_build.training.kernels.lora import find_plain
from meetara_build.training.kernels.packed import TOLERANCE, PackedModel, inner_model, is_close, lay
from meetara_build.training.slots.model import Result, SlotModel, Work
from meetara_build.training.state import trainable

SEED = 0
GRADIENTS = 3
"""How much further than losses gradients may lie apart."""
CPU = torch.device("cpu")


class NotSharedError(Exception):
    """A model cannot compute in slots; its text names it and says why."""

    def __init__(self, adapted: PeftModel, reason: str) -> None:
        super().__init__(f"{type(inner_model(adapted)).__name__}: {reason}")


class Probe(NamedTuple):
    """What proofs are made with: records and an adapter for them, the same laid in a slot, and what
    strangers ask for."""

    records: list[Encoded]
    own: Work
    strangers: list[Work]


def make_probe(adapted: PeftModel, tokens: int, slots: int) -> Probe:
    """Records of random tokens and adapters that change something; the last stranger's is no number
    at all, which must not spread."""
    config = inner_model(adapted).config.get_text_config()
    chance = torch.Generator().manual_seed(SEED)
    flat = torch.cat([weight.detach().reshape(-1).cpu() for weight in trainable(adapted).values()])

    most = min(tokens // 2, getattr(config, "max_position_embeddings", None) or tokens)

    def make_work(place: int) -> tuple[list[Encoded], Work]:
        lengths = [max(2, most - place), max(2, most // 3)]
        records = [_make_record(length, config.vocab_size, chance) for length in lengths]
        weights = flat + 0.02 * torch.randn(flat.shape, generator=chance)
        row = lay(records, CPU)
        return records, Work(weights, row, len(row.keep))

    records, own = make_work(0)
    strangers = [make_work(place)[1] for place in range(1, slots)]
    if strangers:
        strangers[-1] = strangers[-1]._replace(weights=torch.full_like(flat, math.nan))
    return Probe(records, own, strangers)


def _make_record(length: int, vocabulary: int, chance: torch.Generator) -> Encoded:
    ids = torch.randint(vocabulary, (length,), generator=chance).tolist()
    return Encoded(ids, [place >= length // 2 for place in range(length)])


def make_slots(adapted: PeftModel, tokens: int, probe: Probe) -> SlotModel:
    """The model with slots, which give the loss and the gradients that it gives itself.

    Raises:
        NotSharedError: it cannot have them.
    """
    layers = sum(isinstance(part, LoraLayer) for part in adapted.modules())
    if len(find_plain(adapted)) < layers:
        raise NotSharedError(
            adapted, "some of its LoRA layers are more than LoRA on a plain linear layer"
        )
    if _drops_values(adapted):
        raise NotSharedError(adapted, "in training it leaves values out at random")
    expected, gradients = _compute_alone(adapted, probe)
    model = SlotModel(adapted, tokens)
    (made,) = model.compute([probe.own])
    if not _is_same(made, expected, gradients, model.dtype):
        raise NotSharedError(adapted, "in slots it gives other losses or gradients than by itself")
    return model


def _drops_values(adapted: PeftModel) -> bool:
    adapted.train()
    drops = PackedModel(adapted, []).drops()
    adapted.eval()
    return drops


def _compute_alone(adapted: PeftModel, probe: Probe) -> tuple[float, Tensor]:
    """The probe's loss and gradients as a training of its own would have them."""
    weights = trainable(adapted)
    parts = torch.split(probe.own.weights, [weight.numel() for weight in weights.values()])
    with torch.no_grad():
        for weight, part in zip(weights.values(), parts, strict=True):
            weight.copy_(part.view_as(weight))
    packed = PackedModel(adapted, probe.records)
    try:
        if not packed.packs or not packed.fused:
            raise NotSharedError(
                adapted,
                "its layers do not keep records of a row apart, or its output layer is no plain "
                "matrix",
            )
        loss, _ = packed.backward(probe.records, len(probe.own.row.keep))
    finally:
        packed.release()
    found = [weight.grad for weight in weights.values()]
    for weight in weights.values():
        weight.grad = None
    if any(one is None for one in found):
        raise NotSharedError(adapted, "some of its adapter takes no part in the loss")
    return loss, torch.cat([one.reshape(-1).cpu() for one in found if one is not None])


def _is_same(made: Result | None, loss: float, gradients: Tensor, dtype: torch.dtype) -> bool:
    """Whether a slot's result differs by rounding alone. Gradients as a whole: in bfloat16 two exact
    ways differ by three percent after thirty layers, and a leak by much more."""
    if made is None or made.gradients is None:
        return False
    off = (made.gradients - gradients).norm() / gradients.norm()
    near = off <= GRADIENTS * TOLERANCE.get(dtype, 1e-3)
    return bool(near) and is_close(torch.tensor(made.total), torch.tensor(loss), dtype)


def prove_company(model: SlotModel, slots: int, probe: Probe) -> Result | None:
    """What the probe's record gives in a pass of so many slots: bit for bit the same alone in the
    first, among strangers in the last, and in each beside the one that is no number; None where any
    differs.

    Raises:
        MemoryError, RuntimeError: too little memory, as ``faults.ran_out_of_memory`` tells.
    """
    strangers = probe.strangers[len(probe.strangers) - (slots - 1) :]
    alone = model.compute([probe.own, *[None] * len(strangers)])[0]
    found = [model.compute([*strangers, probe.own])[-1]]
    if strangers:
        found += model.compute([*[probe.own] * len(strangers), strangers[-1]])[:-1]
    return alone if all(is_equal(alone, one) for one in found) else None


def is_equal(one: Result | None, other: Result | None) -> bool:
    """Whether two results are the same, bit for bit."""
    if one is None or other is None or one.gradients is None or other.gradients is None:
        return False
    same = (one.total, one.by_record) == (other.total, other.by_record)
    return same and torch.equal(one.gradients, other.gradients)
