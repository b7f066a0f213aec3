"""Which precision a processor computes faster in."""

import pytest
import torch

from meetara_build.training import precision
from meetara_build.training.precision import choose_precision, measure_products


def has(monkeypatch: pytest.MonkeyPatch, *, flag: bool, layout: bool) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: flag)
    monkeypatch.setattr(precision, "can_reorder", lambda dtype: layout)


@pytest.mark.parametrize(("flag", "layout"), [(False, True), (True, False)])
def test_without_the_arithmetic_or_the_layout_it_is_float32_and_nothing_is_measured(
    flag: bool, layout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, flag=flag, layout=layout)
    monkeypatch.delattr(precision, "measure_products")
    assert choose_precision() == "float32"


@pytest.mark.parametrize(
    ("seconds", "chosen"), [([2.0, 1.0], "bfloat16"), ([1.0, 0.9], "float32"), ([1, 3], "float32")]
)
def test_only_a_clear_lead_is_taken(
    seconds: list[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, flag=True, layout=True)
    monkeypatch.setattr(precision, "measure_products", lambda types: seconds)
    assert choose_precision() == chosen


def test_products_are_measured_where_they_can_be_made() -> None:
    if not precision.can_reorder(torch.float32):
        pytest.skip("this processor has no such product")
    assert all(0 < seconds < 1 for seconds in measure_products((torch.float32, torch.float32)))
