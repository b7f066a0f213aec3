"""What records begin with together is computed once, and changes nothing but rounding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from meetara_build.training.chat import Encoded
from meetara_build.training.kernels import attention
from meetara_build.training.kernels.lora import attach
from meetara_build.training.kernels.packed import PackedModel, lay
from meetara_build.training.kernels.prefix import LEAST, count_same, group_texts

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
CPU = torch.device("cpu")


@given(st.lists(st.lists(st.sampled_from([1, 2]), min_size=1, max_size=24), max_size=12))
def test_groups_hold_every_text_once_and_share_what_all_of_them_begin_with(
    texts: list[list[int]],
) -> None:
    groups = group_texts(texts)
    assert sorted(index for group in groups for index in group.members) == [*range(len(texts))]
    for shared, members in groups:
        assert len({tuple(texts[index][:shared]) for index in members}) == 1
        assert all(len(texts[index]) > shared for index in members)
        assert shared >= LEAST if len(members) > 1 else shared == 0


def test_two_domains_records_share_each_their_own_system_prompt() -> None:
    head, one, other = [1] * LEAST, [2] * 40, [3] * 40
    texts = [[*head, *kind, place, 9] for place in range(4) for kind in (one, other)]
    assert [(group.shared, group.members) for group in group_texts(texts)] == [
        (LEAST + 40, [0, 2, 4, 6]),
        (LEAST + 40, [1, 3, 5, 7]),
    ]


def test_a_text_that_another_begins_with_keeps_a_token_of_its_own() -> None:
    short = [5] * (LEAST + 1)
    assert count_same(short, [*short, 6, 7]) == LEAST
    assert [tuple(group) for group in group_texts([short, short])] == [(LEAST, [0, 1])]


def test_a_row_holds_what_is_shared_once(alike: Records) -> None:
    records = alike(4, shared=12)
    row, plain = lay(records, CPU, share=True), lay(records, CPU)
    assert row.ids.shape[1] == plain.ids.shape[1] - 3 * 12
    assert row.prefixes == [None, 0, 0, 0, 0]
    for record, places in zip(records, row.places, strict=True):
        assert row.ids[0, places].tolist() == record.ids
        assert row.positions[0, places].tolist() == [*range(len(record.ids))]
    assert (row.counts, row.targets.tolist()) == (plain.counts, plain.targets.tolist())


@pytest.mark.parametrize("every_token", [False, True])
def test_shared_rows_have_the_loss_and_gradients_of_rows_that_share_nothing(
    architecture: str, every_token: bool, tiny: Make, alike: Records, records: Records
) -> None:
    batch = [*alike(4), *records(2)]
    model = tiny(architecture)
    packed = PackedModel(model, batch)
    assert packed.shares

    def computed(share: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        packed.shares = share
        model.zero_grad()
        loss, _, by_record = packed.loss(batch, every_token=every_token)
        loss.backward()
        named = {name: weight.grad for name, weight in model.named_parameters()}
        gradients = {name: grad.clone() for name, grad in named.items() if grad is not None}
        return loss.detach(), by_record, gradients

    shared, plain = computed(True), computed(False)
    torch.testing.assert_close(shared[0], plain[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(shared[1], plain[1], rtol=1e-5, atol=1e-4)
    assert shared[2].keys() == plain[2].keys()
    for name, gradient in shared[2].items():
        torch.testing.assert_close(gradient, plain[2][name], rtol=1e-3, atol=2e-4, msg=name)


def test_mean_losses_are_those_of_each_record_alone(tiny: Make, alike: Records) -> None:
    batch = alike(6)
    packed = PackedModel(tiny(), batch)
    shared = packed.mean_loss(batch)
    packed.shares = False
    assert packed.mean_loss(batch) == (pytest.approx(shared[0], rel=1e-5), shared[1])


def test_a_model_that_loses_sight_of_the_prefix_shares_nothing(
    tiny: Make, alike: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*given: Any, record_prefixes: object = None, **named: Any) -> tuple[Tensor, None]:
        return attention.attend_packed(*given, **named)

    batch = alike(4)
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, blind)
    packed = PackedModel(tiny(), batch)
    assert (packed.packs, packed.shares) == (True, False)
    assert packed.loss(batch).by_record.isfinite().all()


def test_records_that_share_nothing_need_no_proof(tiny: Make, records: Records) -> None:
    assert not PackedModel(tiny(), records(4)).shares


@pytest.mark.parametrize("where", ["adapter", "attention"])
def test_dropout_draws_for_each_record_anew(where: str, tiny: Make, alike: Records) -> None:
    """One prefix for all would drop the same values for all of them."""
    lora = {
        "rank": 4,
        "alpha": 8,
        "dropout": 0.5 if where == "adapter" else 0.0,
        "targets": "all-linear",
        "rslora": False,
        "dora": False,
    }
    model = attach(tiny(attention_dropout=0.5 if where == "attention" else 0.0), lora, seed=1)
    batch = alike(4)
    packed = PackedModel(model, batch)
    rows: list[int] = []
    plain = packed._hidden

    def count(row: Any) -> Tensor:
        rows.append(row.ids.shape[1])
        return plain(row)

    packed._hidden = count  # type: ignore[method-assign]
    for training in (True, False):
        model.train(training)
        packed.loss(batch)
    whole = sum(len(record.ids) for record in batch)
    assert rows == [whole, whole - 3 * 12]
