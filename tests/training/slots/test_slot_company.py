"""How many a pass serves: fewer where memory runs out, one where company would change bits."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from meetara_build.errors import StepMemoryError
from meetara_build.training.slots import attention
from meetara_build.training.slots.company import DIFFERS, Company
from meetara_build.training.slots.model import SlotModel

DOMAINS = ("nutrition", "legal", "music")
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A device whose memory holds the attention of so many slots, ``fits``."""
    room = {"fits": 99.0}
    plain = attention.attend_slots

    def attend(module: Any, query: torch.Tensor, *given: Any, **more: Any) -> Any:
        if query.shape[0] > room["fits"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(module, query, *given, **more)

    attention.AttentionInterface.register(attention.NAME, attend)
    yield room  # type: ignore[misc]
    attention.AttentionInterface.register(attention.NAME, plain)


def digests(found: dict[str, Any]) -> dict[str, str]:
    return {domain: one.digest for domain, one in found.items()}


@pytest.mark.parametrize(("fits", "size"), [(3, 2), (2, 2), (1, 1)])
def test_where_memory_runs_out_passes_are_split_and_done_again(
    fits: int, size: int, house: Any, memory: dict[str, float]
) -> None:
    house.base = house.base._replace(slots=4)
    trainer = house.start()
    expected = digests({domain: house.train(domain) for domain in DOMAINS})
    memory["fits"] = fits
    found = house.train_together(DOMAINS)
    assert digests(found) == expected
    assert trainer.company.size == size
    for one in found.values():
        assert one.company == {"company": "any"}
        assert one.history.computed["slots_at_once"] == size
        assert one.history.computed["slots"] == 4


def test_a_smaller_pass_is_used_from_the_start_where_the_whole_does_not_fit(
    house: Any, memory: dict[str, float]
) -> None:
    whole = house.start().company
    own = whole._probe.own
    memory["fits"] = 1
    smaller = Company(whole.model, 3, whole._probe)
    assert (smaller.size, smaller.reason) == (1, "")
    memory["fits"] = 3
    (made,), (expected,) = smaller.compute([own]), whole.compute([own])
    assert made is not None and expected is not None
    assert made.total == expected.total
    assert torch.equal(made.gradients, expected.gradients)  # type: ignore[arg-type]


def test_smaller_passes_that_give_other_bits_serve_one_and_say_so(
    house: Any, memory: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    house.start()
    plain = SlotModel._hidden

    def depend_on_size(self: SlotModel, works: Any) -> torch.Tensor:
        return plain(self, works) * (1 + 1e-5 * (len(works) < 3))

    monkeypatch.setattr(SlotModel, "_hidden", depend_on_size)
    memory["fits"] = 2
    found = house.train_together(DOMAINS)
    for one in found.values():
        assert one.company["company"] == "none"
        assert "memory ran out for 3 slots in a pass" in one.company["company_reason"]


def test_where_nothing_fits_it_is_the_observer_s_step_that_failed(
    house: Any, memory: dict[str, float]
) -> None:
    house.start()
    memory["fits"] = 0
    training, _ = house.data("nutrition")
    with pytest.raises(StepMemoryError, match="step 1: out of memory"):
        house.train("nutrition", data=(training, []))


def test_strangers_that_change_bits_are_kept_apart_and_that_is_said(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SlotModel._hidden

    def leak(self: SlotModel, works: Any) -> torch.Tensor:
        hidden = plain(self, works)
        return hidden + 1e-6 * hidden.detach().nan_to_num().mean()

    monkeypatch.setattr(SlotModel, "_hidden", leak)
    trainer = house.start()
    assert trainer.company.most == 1
    alone = {domain: house.train(domain) for domain in DOMAINS}
    found = house.train_together(DOMAINS)
    assert digests(found) == digests(alone)
    for one in found.values():
        assert one.company == {"company": "none", "company_reason": DIFFERS}
        assert one.history.computed["shared_passes"] == 0


def test_a_place_that_changes_bits_is_seen_wherever_it_is(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first slot nor the last, where strangers are tried."""
    plain = SlotModel._hidden

    def lean(self: SlotModel, works: Any) -> torch.Tensor:
        hidden = plain(self, works)
        lean = torch.ones(hidden.shape[0], 1, 1)
        lean[1:-1] += 1e-6
        return hidden * lean

    monkeypatch.setattr(SlotModel, "_hidden", lean)
    assert house.start().company.reason == DIFFERS


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(ALLOCATOR)], ids=repr)
def test_every_way_to_say_that_memory_ran_out_is_understood(
    error: Exception, house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = house.start()
    company: Company = trainer.company
    probe, compute, calls = company._probe, company.model.compute, itertools.count()

    def fail_once(works: Any) -> Any:
        if next(calls) == 0:
            raise error
        return compute(works)

    monkeypatch.setattr(company.model, "compute", fail_once)
    expected = compute([probe.own, None, None])[0]
    (made,) = company.compute([probe.own])
    assert made is not None and expected is not None
    assert torch.equal(made.gradients, expected.gradients)  # type: ignore[arg-type]
    assert company.size == 1


def test_other_errors_are_not_taken_for_memory(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    company = house.start().company

    def fail(works: Any) -> Callable[[], None]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(company.model, "compute", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        company.compute([company._probe.own])
