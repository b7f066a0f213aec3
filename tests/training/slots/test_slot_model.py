"""Slots give what the model gives, and what is in a slot depends on nothing in the others."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from meetara_build.training.chat import Encoded
from meetara_build.training.kernels.lora import attach
from meetara_build.training.kernels.packed import PackedModel, lay
from meetara_build.training.slots.model import Result, SlotModel, Work
from meetara_build.training.slots.proof import CPU, NotSharedError, make_probe, make_slots
from meetara_build.training.state import trainable

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
LORA: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}
TOKENS = 64


def shaken(model: PreTrainedModel, seed: int = 0) -> PeftModel:
    """With an adapter that changes something."""
    adapted = attach(model, LORA, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in trainable(adapted).values():
            weight.add_(0.05 * torch.randn(weight.shape))
    return adapted


def flat(adapted: PeftModel) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in trainable(adapted).values()])


def work(adapted: PeftModel, records: list[Encoded], counted: int | None = 10) -> Work:
    return Work(flat(adapted), lay(records, CPU), counted)


def same(one: Result | None, other: Result | None) -> bool:
    assert one is not None and other is not None
    assert (one.gradients is None) == (other.gradients is None)
    equal = one.gradients is None or torch.equal(one.gradients, other.gradients)  # type: ignore
    return (one.total, one.by_record) == (other.total, other.by_record) and equal


@pytest.mark.parametrize("every_token", [False, True])
def test_losses_and_gradients_are_those_of_the_model_itself(
    architecture: str, every_token: bool, tiny: Make, records: Records
) -> None:
    adapted, several = shaken(tiny(architecture)), records(3, longest=16)
    several[1] = replace(several[1], never=frozenset({2}))
    packed = PackedModel(adapted, several)
    loss, by_record = packed.backward(several, 10, every_token=every_token)
    packed.release()
    expected = torch.cat([weight.grad.reshape(-1) for weight in trainable(adapted).values()])  # type: ignore
    asked = Work(flat(adapted), lay(several, CPU, every_token=every_token), 10)
    (made,) = SlotModel(adapted, TOKENS).compute([asked])
    assert made is not None and made.gradients is not None
    assert made.total == pytest.approx(loss, rel=1e-5)
    assert made.by_record == pytest.approx(by_record, rel=1e-4)
    torch.testing.assert_close(made.gradients, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_stranger_changes_a_bit(
    architecture: str, dtype: torch.dtype, tiny: Make, records: Records
) -> None:
    """Not another's number of records, nor one that only validates, nor one that is no number."""
    adapted = shaken(tiny(architecture))
    own = work(adapted, records(3, longest=16))
    other = work(shaken(tiny(architecture), seed=5), records(1, seed=5))
    broken = other._replace(weights=torch.full_like(own.weights, math.nan))
    endless = other._replace(weights=torch.full_like(own.weights, math.inf))
    checks = other._replace(counted_tokens=None)
    model = SlotModel(adapted.to(dtype), TOKENS)
    alone = model.compute([own, None, None])[0]
    company: list[list[Work | None]] = [
        [other, checks],
        [other, broken],
        [broken, endless],
        [checks, checks],
        [None, None],
    ]
    for (one, two), place in itertools.product(company, range(3)):
        works = [one, two]
        works.insert(place, own)
        assert same(model.compute(works)[place], alone)
    spoilt = model.compute([own, broken, None])[1]
    assert spoilt is not None
    assert math.isnan(spoilt.total)
    assert spoilt.gradients is None


def test_a_loss_does_not_depend_on_whether_gradients_are_asked_for(
    tiny: Make, records: Records
) -> None:
    adapted = shaken(tiny())
    model = SlotModel(adapted, TOKENS)
    own = work(adapted, records(3, longest=16))
    asked, looked = (
        model.compute([own, None]),
        model.compute([own._replace(counted_tokens=None), None]),
    )
    assert asked[0] is not None and looked[0] is not None
    assert asked[0].total == looked[0].total
    assert looked[0].gradients is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gpt2", "more than LoRA on a plain linear layer"), ("mamba", "do not keep records")],
)
def test_a_model_that_cannot_have_slots_says_why(kind: str, reason: str, tiny: Make) -> None:
    adapted = attach(tiny(kind), LORA, 0)
    with pytest.raises(NotSharedError, match=reason):
        make_slots(adapted, TOKENS, make_probe(adapted, TOKENS, 2))


def test_a_base_that_leaves_values_out_at_random_is_not_taken(tiny: Make) -> None:
    adapted = attach(tiny(attention_dropout=0.1), LORA, 0)
    with pytest.raises(NotSharedError, match="LlamaForCausalLM: in training it leaves values out"):
        make_slots(adapted, TOKENS, make_probe(adapted, TOKENS, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_slots_in_either_precision_are_near_enough_to_the_model_s_own(
    architecture: str, dtype: torch.dtype, tiny: Make
) -> None:
    adapted = attach(tiny(architecture).to(dtype), LORA, 0)
    assert make_slots(adapted, TOKENS, make_probe(adapted, TOKENS, 2)).tokens == TOKENS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_that_looks_across_records_is_not_taken(
    dtype: torch.dtype, tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meetara_build.training.slots import attention

    adapted = attach(tiny().to(dtype), LORA, 0)
    monkeypatch.setattr(
        attention.Sight,
        "mask",
        lambda self, window, dtype: torch.zeros(1, 1, TOKENS, TOKENS, dtype=dtype).masked_fill_(
            ~torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(), float("-inf")
        ),
    )
    with pytest.raises(NotSharedError, match="gives other losses or gradients"):
        make_slots(adapted, TOKENS, make_probe(adapted, TOKENS, 2))
