"""The report's pictures: every domain is in them, and the same figures give the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import override

from meetara_build.graph import load
from meetara_build.stages import report
from meetara_build.stages.recipes.report import ReportRecipe
from meetara_build.stages.types import Metrics

DOMAINS = {"nutrition": "healthcare", "sleep": "healthcare", "programming": "technology"}
WORDS = {
    "nutrition": "eat well and rest",
    "sleep": "rest well and dream",
    "programming": "functions, classes, loops",
}
RECIPE: dict[str, Any] = {"domains": DOMAINS, "begins_from": {}, "learns_with": {}}


def run(recipe: Mapping[str, Any], *more: Any) -> Metrics:
    """The stage, of a recipe that is written as JSON."""
    return report.run(ReportRecipe.model_validate(recipe), *more)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for number, domain in enumerate(DOMAINS):
        training = tmp_path / domain / "adapter"
        training.mkdir(parents=True)
        curve = [[1, 6.0, None, 1e-3], [2, 5.5, 5.6 - number / 10, 5e-4]]
        (training / "training.json").write_text(
            json.dumps({"curve": curve, "validation_loss_before": 6.2})
        )
        variants = {
            name: {"loss": 5.5, "bytes": size}
            for name, size in (("F16", 7_000_000), ("Q4_K_M", 2_500_000))
        }
        evaluation: dict[str, Any] = {"base": {"loss": 5.0 + number}, "variants": variants}
        evaluation["choices"] = {"Q4_K_M": {"accuracy": 0.5, "choices": 4}}
        (tmp_path / domain / "evaluation.json").write_text(json.dumps(evaluation))
        counted = {"faulty": 0.5, "harmful": 0.25}
        verdict = {"answers": {"Q4_K_M": counted}, "held_back": None}
        (tmp_path / domain / "verdict.json").write_text(json.dumps(verdict))
        dataset = tmp_path / domain / "dataset"
        dataset.mkdir()
        (dataset / "train.jsonl").write_text(json.dumps({"messages": said(WORDS[domain])}) + "\n")
        found |= {
            f"{domain}/training": training,
            f"{domain}/evaluation": tmp_path / domain,
            f"{domain}/package": tmp_path / domain,
            f"{domain}/dataset": dataset,
        }
    return found


def said(text: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text},
    ]


def test_every_domain_category_and_type_is_shown(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = run(RECIPE, inputs, tmp_path)
    curves, points = (
        (tmp_path / "loss_curves.svg").read_text(),
        (tmp_path / "size_quality.svg").read_text(),
    )
    for word in (*DOMAINS, "healthcare", "technology"):
        assert word in curves
    relations = (tmp_path / "relations.svg").read_text()
    assert all(word in relations for word in (*DOMAINS, "healthcare", "technology"))
    assert "F16" in points
    assert "Q4_K_M" in points
    assert metrics == {"domains": 3, "better_than_base": 2, "held_back_domains": 0}


def test_the_same_figures_give_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        run(RECIPE, inputs, tmp_path / folder)
    for name in ("loss_curves.svg", "size_quality.svg", "relations.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_similar_domains_are_near_each_other_on_the_map() -> None:
    """Two families of four: whoever is nearest is of the same family."""
    alike = np.full((8, 8), 0.1)
    alike[:4, :4] = alike[4:, 4:] = 0.3
    np.fill_diagonal(alike, 1.0)
    places = report.layout(alike)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert apart[:4, :4].max() < apart[:4, 4:].min()
    assert (places == report.layout(alike)).all()


@pytest.mark.parametrize("count", [1, 2])
def test_a_map_of_few_domains(count: int) -> None:
    places = report.layout(np.eye(count))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


def test_arrows_show_what_trainings_take_from_one_another(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(RECIPE, inputs, tmp_path)
    plain = (tmp_path / "relations.svg").read_text()
    run(
        {**RECIPE, "begins_from": {"sleep": "nutrition"}, "learns_with": {"sleep": ["gone"]}},
        inputs,
        tmp_path,
    )
    begun = (tmp_path / "relations.svg").read_text()
    run({**RECIPE, "learns_with": {"sleep": ["nutrition", "programming"]}}, inputs, tmp_path)
    learns = (tmp_path / "relations.svg").read_text()
    assert [arrows(text) - arrows(plain) for text in (begun, learns)] == [1, 2]
    assert learns.count("stroke-dasharray") > begun.count("stroke-dasharray")


def arrows(text: str) -> int:
    return text.count("#696969") // 2  # matplotlib's dimgrey: a shaft and a head


def test_the_recipe_says_what_trainings_take_from_one_another(project: Path) -> None:
    assert load(project).step("report", "report").recipe["begins_from"] == {}
    override(project, "nutrition", {"training.joint": ["storytelling", "programming"]})
    recipe = load(project).step("report", "report").recipe
    assert recipe["learns_with"] == {"nutrition": ["programming", "storytelling"]}
