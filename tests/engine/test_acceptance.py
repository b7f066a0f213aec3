"""accept DOMAIN: later builds are held to the present one."""

import json
from pathlib import Path

import pytest
from projects import override

from meetara_build.config.accepted import read_accepted
from meetara_build.engine.acceptance import accept_build
from meetara_build.engine.planning import look
from meetara_build.errors import ConfigError
from meetara_build.graph import load

RECORDS = {"aa": [2.5, 40], "bb": [3.0, 60]}


def give_records(project: Path) -> None:
    """As if the stand-in of the evaluation had measured records, with everything up to date."""
    path = project / "artifacts" / "nutrition" / "evaluation" / "evaluation.json"
    content = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**content, "by_record": RECORDS}))


def test_how_a_build_scored_is_written_and_reaches_its_package_alone(fast: Path) -> None:
    graph = load(fast)
    made = look(graph, ["nutrition"])
    give_records(fast)
    path = accept_build(graph, made, "nutrition")
    assert path == fast / "conf" / "accepted" / "nutrition.yaml"
    accepted = read_accepted(fast / "conf")["nutrition"]
    assert accepted.base == "mini"
    assert accepted.records == {"aa": (2.5, 40), "bb": (3.0, 60)}
    recipes = {key: step.recipe for key, step in load(fast).steps.items()}
    changed = {key for key, step in graph.steps.items() if step.recipe != recipes[key]}
    assert changed == {("package", "nutrition")}


def test_the_plan_names_the_file_that_was_written(fast: Path) -> None:
    graph = load(fast)
    made = look(graph, ["nutrition"])
    evaluation = fast / "artifacts" / "nutrition" / "evaluation" / "evaluation.json"
    before = evaluation.read_bytes()
    give_records(fast)
    accept_build(graph, made, "nutrition")
    evaluation.write_bytes(before)
    causes = {
        cause.text()
        for item in look(load(fast), ["nutrition"]).to_do()
        if item.step.stage == "package"
        for cause in item.causes
    }
    assert causes == {"conf/accepted/nutrition.yaml: new"}


def test_what_is_not_up_to_date_is_not_accepted(fast: Path) -> None:
    override(fast, "nutrition", {"lora.rank": 8})
    graph = load(fast)
    with pytest.raises(ConfigError, match=r"nutrition/adapter is not up to date.*build nutrition"):
        accept_build(graph, look(graph, ["nutrition"]), "nutrition")
    assert not (fast / "conf" / "accepted").exists()


def test_a_model_that_is_held_back_is_not_accepted(held_back: Path) -> None:
    graph = load(held_back)
    with pytest.raises(ConfigError, match="its models are held back"):
        accept_build(graph, look(graph, ["nutrition"]), "nutrition")
    assert not (held_back / "conf" / "accepted").exists()
