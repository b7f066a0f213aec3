"""What the memory model says of shapes that were measured, and of those that were not."""

import random

import pytest

from meetara_build.toolbox.memory_model import (
    EXPECTED,
    Shape,
    _list_adapted,
    fit_model,
    shape_of,
    terms,
)

LORA = {"rank": 16, "dropout": 0.0, "targets": "all-linear", "dora": False}
MODEL = {
    "parameters": 3_000_000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "vocab_size": 4096,
}


def shape(tokens: int = 1024, device: str = "cpu", **sizes: int) -> Shape:
    """A training of a small base, or of one with other sizes."""
    found = shape_of({**MODEL, **sizes}, LORA, "float32", device, tokens)
    assert found is not None
    return found


def cost(costs: list[float], of: Shape) -> float:
    """A machine on which a byte of each term costs this."""
    return sum(one * term for one, term in zip(costs, terms(of), strict=True))


def test_without_a_measured_run_the_code_s_figures_hold() -> None:
    model = fit_model([])
    assert model.costs == pytest.approx(EXPECTED["cpu"])
    assert model.runs == 0


def test_measured_runs_are_learnt_and_others_predicted() -> None:
    chance, machine = random.Random(3), [700e6, 1.1, 4.0, 14.0, 4.5, 7.0, 1.2, 3.0]
    shapes = [
        shape(
            chance.choice([512, 1024, 4096]),
            hidden_size=chance.choice([128, 256, 512]),
            intermediate_size=chance.choice([256, 1024, 2048]),
            layers=chance.choice([2, 6, 12]),
            parameters=chance.choice([3, 30, 100]) * 1_000_000,
        )
        for _ in range(30)
    ]
    model = fit_model(
        [(one, cost(machine, one) * chance.uniform(0.98, 1.02)) for one in shapes[:15]]
    )
    for one in shapes[15:]:
        assert model.peak_bytes(one) == pytest.approx(cost(machine, one), rel=0.05)
    assert model.runs == 15
    assert min(model.costs) >= 0


def test_what_one_machine_shows_says_nothing_of_another_kind() -> None:
    assert fit_model([(shape(), 9e9)], "cuda").costs == pytest.approx(EXPECTED["cuda"])


def test_more_of_anything_takes_more() -> None:
    model, small = fit_model([]), shape()
    for larger in (
        shape(2048),
        shape(hidden_size=512),
        shape(intermediate_size=1024),
        shape(layers=6),
        shape(kv_heads=4),
        shape(parameters=9_000_000),
        shape(vocab_size=9000),
        shape_of(MODEL, {**LORA, "rank": 64}, "float32", "cpu", 1024),
        shape_of(MODEL, {**LORA, "dropout": 0.1}, "float32", "cpu", 1024),
    ):
        assert larger is not None
        assert model.peak_bytes(larger) > model.peak_bytes(small)


def test_bfloat16_and_fewer_targets_take_less() -> None:
    half = shape_of(MODEL, LORA, "bfloat16", "cuda", 1024)
    few = shape_of(MODEL, {**LORA, "targets": ["q_proj", "v_proj"]}, "float32", "cpu", 1024)
    assert half is not None and few is not None
    assert fit_model([], "cuda").peak_bytes(half) < fit_model([], "cuda").peak_bytes(
        shape(device="cuda")
    )
    assert fit_model([]).peak_bytes(few) < fit_model([]).peak_bytes(shape())


def test_weights_too_large_to_be_rearranged_have_no_copies() -> None:
    assert (
        terms(shape(hidden_size=4096, intermediate_size=11008, layers=32))[1]
        < 8 * MODEL["parameters"] + 2**28
    )
    assert terms(shape(device="cuda"))[1] == 4 * MODEL["parameters"]
    assert terms(shape())[1] > 8 * MODEL["parameters"]


def test_a_weight_with_copies_is_not_held_beside_them() -> None:
    """Two copies of what is adapted and of the output layer, and what is neither once."""
    adapted = sum(one * other for one, other in _list_adapted(shape()))
    head = MODEL["vocab_size"] * MODEL["hidden_size"]
    assert terms(shape())[1] == 4 * (MODEL["parameters"] + adapted + 2 * head)


@pytest.mark.parametrize("unknown", ["hidden_size", "heads", "vocab_size", "parameters"])
def test_nothing_is_said_of_a_base_whose_sizes_are_not_known(unknown: str) -> None:
    assert shape_of({**MODEL, unknown: None}, LORA, "float32", "cpu", 1024) is None


def test_nothing_is_said_of_dora() -> None:
    assert shape_of(MODEL, {**LORA, "dora": True}, "float32", "cpu", 1024) is None


def test_the_most_tokens_that_fit_just_fit() -> None:
    model, available = fit_model([]), 2e9
    most = model.most_tokens(shape(), available)
    assert model.peak_bytes(shape(most)) <= available < model.peak_bytes(shape(most + 1))
    assert model.most_tokens(shape(), 1e6) == 0
