"""The gate: a domain's models are packaged only if their held-out figures reach the domain's
bounds."""

from collections.abc import Mapping
from typing import Any

from meetara_build.errors import GateError, GateLossError, QuantError
from meetara_build.stages.recipes.package import PackageRecipe


def check_bounds(recipe: PackageRecipe, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that passed.

    Raises:
        GateError: with every figure that missed its bound.
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
    if missed:
        raise kind(
            f"{domain}: not packaged:\n  "
            + "\n  ".join(missed)
            + f"\nGive it more or better records, train it longer, choose "
            f"other quants, or state another bound in conf/domain/{domain}.yaml"
        )
    best = evaluation["variants"][recipe.quants[0]]["loss"]
    return {"base_loss": base, "loss": best, "improvement": round(1.0 - best / base, 6)}


def _percent(gain: float) -> str:
    return f"{gain:.1%} below" if gain > 0 else f"{-gain:.1%} above"
