"""The gate: a model that misses a bound is held back, each miss named with its figure and its
key."""

import re
from typing import Any

import pytest
from packages import RECIPE, altered, evaluation

from meetara_build.errors import GateError
from meetara_build.stages.package.gate import check_bounds


def test_figures_within_their_bounds_pass() -> None:
    assert check_bounds(RECIPE, evaluation()) == {"base_loss": 2.0, "loss": 1.8, "improvement": 0.1}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (
            evaluation(f16=2.1),
            "F16: held-out loss 2.1000 is 5.0% above the base's 2.0000; it must be below it by 2.0%",
        ),
        (
            evaluation(q4=1.97),
            "Q4_K_M: held-out loss 1.9700 is 1.5% below the base's 2.0000; it must be below it by 2.0%",
        ),
        (
            evaluation(kl=0.3),
            "Q4_K_M: KL divergence from F16 0.3 is above 0.25 nats per token (evaluation.max_kl.Q4_K_M)",
        ),
    ],
)
def test_a_missed_bound_is_named_with_its_figure_and_its_key(
    figures: dict[str, Any], said: str
) -> None:
    with pytest.raises(GateError) as fault:
        check_bounds(RECIPE, figures)
    message = str(fault.value)
    assert message.startswith("nutrition: not packaged:\n")
    assert said in message.replace("0.3000", "0.3")
    assert "state another bound in conf/domain/nutrition.yaml" in message


def test_all_missed_bounds_are_named_at_once() -> None:
    with pytest.raises(GateError) as fault:
        check_bounds(RECIPE, evaluation(f16=2.1, q4=2.2, kl=0.9))
    assert len(re.findall(r"^  (F16|Q4_K_M): ", str(fault.value), re.MULTILINE)) == 3


def test_a_model_as_good_as_its_base_is_not_better() -> None:
    with pytest.raises(GateError, match=r"F16: held-out loss 2\.0000"):
        check_bounds(altered(beat_base_by=0.0), evaluation(f16=2.0))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_not_better(loss: float) -> None:
    with pytest.raises(GateError, match="F16: held-out loss"):
        check_bounds(RECIPE, evaluation(f16=loss))


@pytest.mark.parametrize("loss", [1.9, float("nan")])
def test_an_f16_loss_above_the_domain_s_own_bound_is_named_with_the_figure_and_the_bound(
    loss: float,
) -> None:
    with pytest.raises(
        GateError,
        match=r"F16: held-out loss .* is above 1\.8 nats per token \(evaluation\.max_loss\)",
    ):
        check_bounds(altered(max_loss=1.8), evaluation(f16=loss))
    assert check_bounds(altered(max_loss=1.8), evaluation(f16=1.8))["loss"] == 1.8


def test_a_divergence_that_is_no_number_is_above_any_bound() -> None:
    with pytest.raises(GateError, match="Q4_K_M: KL divergence from F16 nan"):
        check_bounds(RECIPE, evaluation(kl=float("nan")))


def test_a_type_without_a_bound_of_its_own_need_only_beat_the_base() -> None:
    assert check_bounds(altered(max_kl={}), evaluation(kl=5.0))
