"""What a base scores on a domain's held-out records, whatever is trained on the others."""

import json
from pathlib import Path

import pytest
from gguf_builds import Build, fresh, recipe, train_nothing
from stages.test_evaluate import BASE, torch_loss

from meetara_build.errors import ArtifactError
from meetara_build.stages import baseline, gguf
from meetara_build.stages.recipes.answers import AnswersRecipe
from meetara_build.stages.recipes.baseline import BaselineRecipe

RECIPE = BaselineRecipe.model_validate(BASE)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def inputs(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    own = tmp_path_factory.mktemp("base_gguf")
    gguf.run(recipe(name="tiny"), {"base": build.base}, own)
    return {"base_gguf": own, "dataset": build.dataset, "base": build.base}


def test_its_loss_is_that_of_torch_and_the_same_each_time(
    build: Build, inputs: dict[str, Path], tmp_path: Path
) -> None:
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    metrics = baseline.run(RECIPE, inputs, one)
    assert baseline.run(RECIPE, inputs, two) == metrics
    first, second = (json.loads((folder / "baseline.json").read_text()) for folder in (one, two))
    measured = first.pop("measured")["base"]
    speeds = {"load_seconds", "prompt_tokens_per_second"}
    assert set(measured) == {*speeds, "answer_cpu_seconds"}
    assert all(measured[name] > 0 for name in speeds)
    second.pop("measured")
    assert first == second
    assert first["records"] == 5
    assert first["base"]["loss"] == metrics["base_loss"]
    assert metrics["base_loss"] == pytest.approx(torch_loss(build.base, build.dataset), rel=2e-4)


def test_a_missing_file_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"other-F16.gguf: no such file for base"):
        baseline.run(RECIPE.model_copy(update={"base": "other"}), inputs, tmp_path)


ASKED = RECIPE.model_copy(
    update={"answers": AnswersRecipe(prompts=None, tokens=8, choice_tokens=6)}
)


def test_its_answers_are_kept_and_the_same_each_time(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    metrics = baseline.run(ASKED, inputs, one)
    assert baseline.run(ASKED, inputs, two) == metrics
    assert metrics["choices"]["choices"] == 5
    text = (one / "answers.jsonl").read_text(encoding="utf-8")
    assert (two / "answers.jsonl").read_text(encoding="utf-8") == text
    lines = [json.loads(line) for line in text.split("\n") if line]
    assert len(lines) == 5
    assert {tuple(line["answers"]) for line in lines} == {("base",)}


def test_where_nothing_is_asked_the_file_is_empty(inputs: dict[str, Path], tmp_path: Path) -> None:
    assert baseline.run(RECIPE, inputs, tmp_path)["choices"] is None
    assert (tmp_path / "answers.jsonl").read_bytes() == b""
