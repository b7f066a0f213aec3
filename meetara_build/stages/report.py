"""A table and three pictures over all domains: loss curves, what each quantized file costs in quality
for its size, and which are alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meetara_build.errors import needs
from meetara_build.outside import parse_json
from meetara_build.stages.answer_lines import VERDICT
from meetara_build.stages.recipes.report import ReportRecipe
from meetara_build.stages.report_table import render_table
from meetara_build.stages.text_similarity import likeness
from meetara_build.stages.types import Inputs, Metrics

with needs("report"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
FARTHER = 6
"""The power of 1 - cosine that is a distance: most pairs have few words in common, and it is the
near ones that a map is for."""

Floats = npt.NDArray[np.float64]


def run(recipe: ReportRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``domains.md``, ``loss_curves.svg``, ``size_quality.svg`` and ``relations.svg``.

    Args:
        inputs: ``DOMAIN/training``, ``DOMAIN/evaluation``, ``DOMAIN/package`` and
            ``DOMAIN/dataset`` folders.
    """
    domains: Mapping[str, str] = recipe.domains
    training = {name: _read(inputs[f"{name}/training"] / "training.json") for name in domains}
    evaluation = {name: _read(inputs[f"{name}/evaluation"] / "evaluation.json") for name in domains}
    verdicts = {name: _read(inputs[f"{name}/package"] / VERDICT) for name in domains}
    table = render_table(evaluation, verdicts)
    (output / "domains.md").write_text(table + "\n", encoding="utf-8")
    with mpl.rc_context(STYLE):
        _save(loss_curves(domains, training), output / "loss_curves.svg")
        _save(size_quality(evaluation), output / "size_quality.svg")
        texts = {name: _text(inputs[f"{name}/dataset"] / "train.jsonl") for name in domains}
        _save(relations(domains, likeness(texts), recipe), output / "relations.svg")
    better = sum(_gain(content, "F16") > 0 for content in evaluation.values())
    held = sum(verdict["held_back"] is not None for verdict in verdicts.values())
    return {"domains": len(domains), "better_than_base": better, "held_back_domains": held}


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
    checked = [
        (step, validation) for step, _, validation, _ in training["curve"] if validation is not None
    ]
    before = training["validation_loss_before"]
    points = [(0, before), *checked] if before is not None else checked
    axes.plot(
        [step for step, _ in points],
        [loss for _, loss in points],
        linewidth=1,
        label=name.replace("_", " "),
    )


def size_quality(evaluation: Mapping[str, Any]) -> Figure:
    """Each GGUF file as a point: its size, and how far its held-out loss is below the base's."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for quant in dict.fromkeys(
        quant for content in evaluation.values() for quant in content["variants"]
    ):
        having = [content for content in evaluation.values() if quant in content["variants"]]
        sizes = [content["variants"][quant]["bytes"] / 1e6 for content in having]
        axes.scatter(
            sizes, [100 * _gain(content, quant) for content in having], s=14, alpha=0.7, label=quant
        )
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("size of the file, MB")
    axes.set_ylabel("held-out loss below the base's, %")
    axes.set_title("Size against quality, a point for each domain and type")
    axes.legend(frameon=False)
    return figure


def relations(
    domains: Mapping[str, str], alike: Mapping[str, Mapping[str, float]], recipe: ReportRecipe
) -> Figure:
    """A map: similar domains are near each other, each is joined to the most similar one, and
    arrows show who begins from whose adapter, or learns whose records too."""
    names = sorted(domains)
    places = dict(
        zip(
            names,
            layout(np.array([[alike[one][other] for other in names] for one in names])),
            strict=True,
        )
    )
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        if len(names) > 1:
            near = max(
                (other for other in names if other != name),
                key=lambda other: (alike[name][other], other),
            )
            axes.plot(
                *zip(places[name], places[near], strict=True),
                color="lightgrey",
                linewidth=0.8,
                zorder=0,
            )
        axes.annotate(
            name.replace("_", " "), places[name], (3, 3), textcoords="offset points", fontsize=6
        )
    for category in sorted(set(domains.values())):
        points = np.array([places[name] for name in names if domains[name] == category])
        axes.scatter(points[:, 0], points[:, 1], s=18, label=category.replace("_", " "))
    for name, teacher in recipe.begins_from.items():
        _arrow(axes, places, teacher, name, "solid")
    for name, others in recipe.learns_with.items():
        for other in others:
            _arrow(axes, places, other, name, "dashed")
    axes.set_title(
        "Domains by the words of their records; arrows: begins from the adapter (solid), learns "
        "the records too (dashed)"
    )
    axes.set_axis_off()
    axes.legend(frameon=False, fontsize=6)
    return figure


def _arrow(axes: Axes, places: Mapping[str, Floats], start: str, end: str, line: str) -> None:
    if start in places and end in places:
        style = {
            "arrowstyle": "->",
            "linestyle": line,
            "color": "dimgrey",
            "shrinkA": 4,
            "shrinkB": 4,
        }
        axes.annotate("", tuple(places[end]), tuple(places[start]), arrowprops=style)


def layout(cosines: Floats) -> Floats:
    """Places on a plane whose distances come near those along chains of similar domains (Kamada and
    Kawai 1989), by multidimensional scaling. The same cosines give the same places."""
    from scipy.sparse.csgraph import shortest_path
    from sklearn.manifold import MDS

    if len(cosines) < 3:
        return np.eye(len(cosines), 2)
    far = np.maximum(1 - cosines, 1e-3) ** FARTHER
    np.fill_diagonal(far, 0.0)
    far = shortest_path(far, directed=False)
    scaling = MDS(metric="precomputed", init="classical_mds", n_init=1)
    places: Floats = scaling.fit_transform(far / (far.max() or 1.0))
    return places.round(4)


def _text(path: Path) -> str:
    """What is asked and answered in a domain's records; its system prompt would tell it from all
    others."""
    with path.open(encoding="utf-8") as file:
        turns = [
            turn
            for line in file
            for turn in parse_json(line)["messages"]
            if turn["role"] != "system"
        ]
    return "\n".join(turn["content"] for turn in turns)


def _gain(evaluation: Mapping[str, Any], quant: str) -> float:
    return float(1 - evaluation["variants"][quant]["loss"] / evaluation["base"]["loss"])


def _read(path: Path) -> Any:
    return parse_json(path.read_text(encoding="utf-8"))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
