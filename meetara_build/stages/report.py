"""Two pictures over all domains: loss curves, and what each quantized file costs in quality for its size."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meetara_build.stages.types import Inputs, Metrics, Recipe

STYLE: Any = {
    "svg.hashsalt": "meetara-build",  # the same picture has the same bytes
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
}
PANEL = (3.4, 2.4)
"""Width and height of one category's panel, inches."""


def run(recipe: Recipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``loss_curves.svg`` and ``size_quality.svg``.

    ``recipe["domains"]`` names each domain's category; ``inputs`` are ``DOMAIN/training`` and ``DOMAIN/evaluation`` folders.
    """
    domains: Mapping[str, str] = recipe["domains"]
    training = {name: _read(inputs[f"{name}/training"] / "training.json") for name in domains}
    evaluation = {name: _read(inputs[f"{name}/evaluation"] / "evaluation.json") for name in domains}
    with mpl.rc_context(STYLE):
        _save(loss_curves(domains, training), output / "loss_curves.svg")
        _save(size_quality(evaluation), output / "size_quality.svg")
    better = sum(_gain(content, "F16") > 0 for content in evaluation.values())
    return {"domains": len(domains), "better_than_base": better}


def loss_curves(domains: Mapping[str, str], training: Mapping[str, Any]) -> Figure:
    """Validation loss by step, one panel a category, one line a domain."""
    categories = sorted(set(domains.values()))
    columns = min(4, len(categories))
    rows = -(-len(categories) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    for index, category in enumerate(categories):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name in sorted(name for name, of in domains.items() if of == category):
            _curve(axes, name, training[name])
        axes.set_title(category.replace("_", " "))
        axes.set_xlabel("step")
        axes.set_ylabel("validation loss, nats a token")
        axes.legend(fontsize=5, frameon=False, ncols=2)
    return figure


def _curve(axes: Axes, name: str, training: Mapping[str, Any]) -> None:
    checked = [(step, validation) for step, _, validation, _ in training["curve"] if validation is not None]
    before = training["validation_loss_before"]
    points = [(0, before), *checked] if before is not None else checked
    axes.plot([step for step, _ in points], [loss for _, loss in points], linewidth=1, label=name.replace("_", " "))


def size_quality(evaluation: Mapping[str, Any]) -> Figure:
    """Each GGUF file as a point: its size, and how far its held-out loss is below the base's."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for quant in dict.fromkeys(quant for content in evaluation.values() for quant in content["variants"]):
        having = [content for content in evaluation.values() if quant in content["variants"]]
        sizes = [content["variants"][quant]["bytes"] / 1e6 for content in having]
        axes.scatter(sizes, [100 * _gain(content, quant) for content in having], s=14, alpha=0.7, label=quant)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("size of the file, MB")
    axes.set_ylabel("held-out loss below the base's, %")
    axes.set_title("Size against quality, a point for each domain and type")
    axes.legend(frameon=False)
    return figure


def _gain(evaluation: Mapping[str, Any], quant: str) -> float:
    return float(1 - evaluation["variants"][quant]["loss"] / evaluation["base"]["loss"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
