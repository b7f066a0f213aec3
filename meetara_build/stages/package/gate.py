"""The gate: a domain's models are packaged only if their held-out figures reach the domain's
bounds, and their answers do not do harm beyond them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meetara_build.errors import AnswersError, GateError, GateLossError, QuantError, RegressionError
from meetara_build.stages.answers.checks import CHECK
from meetara_build.stages.package.judging import (
    Judged,
    list_harms,
    show_around,
    show_on_line,
)
from meetara_build.stages.package.regression import measure_regression
from meetara_build.stages.recipes.package import PackageRecipe

FEW = 2
"""Answers that are shown for each check of a file that is held back."""


def check_bounds(
    recipe: PackageRecipe, evaluation: Mapping[str, Any], judged: Mapping[str, Sequence[Judged]]
) -> dict[str, Any]:
    """The figures that passed; ``judged`` are the answers of each file.

    Raises:
        GateError: with every figure that missed its bound, and answers that do harm.
    """
    domain, wanted = recipe.domain, recipe.beat_base_by
    base = evaluation["base"]["loss"]
    missed: list[str] = []
    kind: type[GateError] = GateLossError
    highest, loss = recipe.max_loss, evaluation["variants"]["F16"]["loss"]
    if highest is not None and not loss <= highest:
        missed.append(
            f"F16: held-out loss {loss:.4f} is above {highest} nats per token (evaluation.max_loss)"
        )
    for quant in recipe.quants:
        figures = evaluation["variants"][quant]
        gain = 1.0 - figures["loss"] / base
        if not (gain > 0.0 and gain >= wanted):  # so that no number is a miss too
            missed.append(
                f"{quant}: held-out loss {figures['loss']:.4f} is {_percent(gain)} the base's "
                f"{base:.4f}; it must be below it by {wanted:.1%} (evaluation.beat_base_by)"
            )
        bound, kl = recipe.max_kl.get(quant), figures.get("kl_mean")
        if bound is not None and kl is not None and not kl <= bound:
            kind = QuantError
            missed.append(
                f"{quant}: KL divergence from F16 {kl:.4f} is above {bound} nats per token "
                f"(evaluation.max_kl.{quant})"
            )
    harms = list(_find_harms(recipe, judged))
    worse = list(_find_regression(recipe, evaluation))
    if missed or harms or worse:
        fault = kind if missed else AnswersError if harms else RegressionError
        raise fault(
            f"{domain}: not packaged:\n  "
            + "\n  ".join([*missed, *harms, *worse])
            + "\nGive it more or "
            "better records, train it longer, choose other quants or a larger base, or state "
            f"another bound in conf/domain/{domain}.yaml"
        )
    best = evaluation["variants"][recipe.quants[0]]["loss"]
    return {"base_loss": base, "loss": best, "improvement": round(1.0 - best / base, 6)}


def _find_harms(recipe: PackageRecipe, judged: Mapping[str, Sequence[Judged]]) -> Iterator[str]:
    """A text for each check that finds harm in more of a file's answers than may have it."""
    for quant in sorted({"F16", *recipe.quants}, key=["F16", *recipe.quants].index):
        answers = judged.get(quant, ())
        for check, bound in recipe.harm.items():
            found = list_harms(answers, check)
            if not found or len(found) / len(answers) <= bound:
                continue
            lines = [
                f"{quant}: {len(found)} of {len(answers)} answers: {show_on_line(found[0][1].says)}; "
                f"at most {bound:.0%} may (answers.bounds.{recipe.safety}.{check}: a model "
                f"{CHECK[check].about})"
            ]
            for answer, finding in found[:FEW]:
                lines += [
                    f"  asked: {show_around(answer.line['prompt'])}",
                    f"  said: {show_around(answer.text, finding)}",
                ]
            yield "\n  ".join(lines)


def _find_regression(recipe: PackageRecipe, evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Where the model is surely worse than the accepted one, on the same base."""
    if recipe.accepted is None or recipe.accepted.base != recipe.base:
        return
    found = measure_regression(recipe.accepted, evaluation)
    if found is not None and not found[1] <= recipe.worse_by:
        now, low, high = found
        yield (
            f"F16: held-out loss is {now:.1%} above the accepted build's on the same records, {low:.1%} "
            f"to {high:.1%} over draws of them; at most "
            f"{recipe.worse_by:.1%} is allowed (evaluation.worse_by); `meetara-build accept {recipe.domain}` takes this one instead"
        )


def _percent(gain: float) -> str:
    return f"{gain:.1%} below" if gain > 0 else f"{-gain:.1%} above"
