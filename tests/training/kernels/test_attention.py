"""Records in one row are computed as if each were alone."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from meetara_build.training.chat import Encoded
from meetara_build.training.kernels import attention
from meetara_build.training.kernels.packed import PackedModel, lay

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]


def own_loss(model: PreTrainedModel, records: list[Encoded]) -> Tensor:
    """The model's own logits, one record at a time, and plain cross-entropy over answers."""
    total = torch.zeros(())
    for record in records:
        logits = model(input_ids=torch.tensor([record.ids])).logits[0]
        for place in range(1, len(record.ids)):
            if record.mask[place]:
                total = total - logits[place - 1].log_softmax(-1)[record.ids[place]]
    return total


def test_a_row_of_records_has_the_loss_and_gradients_of_each_alone(
    architecture: str, tiny: Make, records: Records
) -> None:
    batch = records(5)
    model = tiny(architecture)
    expected = own_loss(model, batch)
    expected.backward()
    gradients = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        packed = PackedModel(model, batch)
    assert packed.packs
    assert packed.fused
    loss, tokens, by_record = packed.loss(batch)
    loss.backward()

    assert tokens == sum(record.completion_tokens for record in batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    alone = torch.stack([own_loss(model, [record]) for record in batch])
    torch.testing.assert_close(by_record, alone, rtol=1e-5, atol=1e-4)
    for name, weight in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-3, atol=1e-4, msg=name)


def test_no_token_sees_another_record(architecture: str, tiny: Make, records: Records) -> None:
    model = tiny(architecture)
    first, second, other = records(3)
    packed = PackedModel(model, [first, second])
    with torch.no_grad():
        one = packed._hidden(lay([first, second], packed.device))[0, len(first.ids) :]
        two = packed._hidden(lay([other, second], packed.device))[0, len(other.ids) :]
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_model_that_leaks_across_records_is_trained_one_record_at_a_time(
    tiny: Make, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(
        module: object, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, None]:
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        return out.transpose(1, 2), None

    batch = records(4)
    model = tiny()
    expected = own_loss(model, batch)
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, leaky)
    with pytest.warns(UserWarning, match="one at a time"):
        packed = PackedModel(model, batch)
    assert not packed.packs
    torch.testing.assert_close(packed.loss(batch)[0], expected, rtol=1e-5, atol=1e-4)


def test_a_head_that_is_not_one_matrix_is_left_to_the_model(tiny: Make, records: Records) -> None:
    batch = records(4)
    model = tiny()
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, out: out * 1.5)
    model.set_output_embeddings(torch.nn.Sequential(head))
    packed = PackedModel(model, batch)
    assert packed.packs
    assert not packed.fused
    torch.testing.assert_close(packed.loss(batch)[0], own_loss(model, batch), rtol=1e-5, atol=1e-4)


def test_the_model_gets_its_own_attention_back(tiny: Make, records: Records) -> None:
    model = tiny()
    before = model.config._attn_implementation
    packed = PackedModel(model, records(2))
    assert model.config._attn_implementation == attention.NAME
    packed.release()
    assert model.config._attn_implementation == before


def test_keys_from_a_cache_are_refused() -> None:
    query, key = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match="without a cache"):
        attention.attend_packed(torch.nn.Identity(), query, key, key)


def test_bfloat16_gives_bfloat16() -> None:
    part = torch.randn(1, 2, 6, 4, dtype=torch.bfloat16)
    out, _ = attention.attend_packed(torch.nn.Identity(), part, part, part, record_lengths=[2, 4])
    assert out.dtype == torch.bfloat16
    assert out.shape == (1, 6, 2, 4)
