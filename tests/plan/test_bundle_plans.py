"""What an edit makes run again where there are bundles: the domain, and the bundles it is in."""

import json
from pathlib import Path
from typing import Any

import pytest
from fast_stages import Edit, added, build, fast_project, text
from projects import copy_built, edit, override, write_yaml

from meetara_build.graph import load
from meetara_build.plan import plan

FOOD, WORK, SONGS = "bundle/food", "bundle/work", "bundle/songs"
BUNDLES: dict[str, dict[str, Any]] = {
    FOOD: {"domains": ["nutrition", "storytelling"], "quants": ["Q4_K_M"]},
    WORK: {"domains": ["programming"], "quants": "all"},
    SONGS: {"domains": ["music"], "quants": ["Q8_0"]},
}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four domains on two bases, and three bundles of them, all built."""
    project = fast_project(tmp_path_factory.mktemp("bundles") / "project")
    for name, content in BUNDLES.items():
        path = project / "conf" / f"{name}.yaml"
        write_yaml(path, {"description": "Some domains", **content})
    build(project)
    build(project, [*BUNDLES])
    return project


@pytest.fixture
def project(bundled: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(bundled, tmp_path / "project")


def reaches(project: Path) -> set[str]:
    """The bundles, and targets of any other kind, that a build of every bundle works out."""
    ran = build(project, [*BUNDLES])
    assert ran.not_as_announced() == {}
    assert plan(load(project), bundles=True).count("RUN") <= 1, "the report alone is left"
    return {name.rpartition("/")[0] for name in ran.worked_out}


def test_built_bundles_are_fresh(project: Path) -> None:
    assert plan(load(project), bundles=True).to_do() == []


def other_base(project: Path) -> None:
    path = project / "models" / "other" / "model.safetensors"
    path.unlink()  # its other names keep their bytes
    path.write_text(json.dumps({"name": "another"}))


@pytest.mark.parametrize(
    ("change", "targets"),
    [
        (added("storytelling", "train"), {"storytelling", FOOD}),
        (lambda project: override(project, "programming", {"lora.rank": 4}), {"programming", WORK}),
        (other_base, {"base/other", "music", SONGS}),
        (
            lambda project: edit(
                project / "conf" / "domain" / "storytelling.yaml", "description", "Tales"
            ),
            {"storytelling", FOOD},
        ),
        (
            lambda project: edit(project / "conf" / "bundle" / "work.yaml", "quants", ["Q8_0"]),
            {WORK},
        ),
        (
            lambda project: edit(
                project / "conf" / "bundle" / "food.yaml", "domains", ["nutrition", "programming"]
            ),
            {FOOD},
        ),
        (text("conf/bundle/food.yaml", lambda old: f"# A remark\n{old}"), set()),
    ],
    ids=["record", "key", "base", "description", "types", "members", "remark"],
)
def test_an_edit_reaches_a_domain_and_the_bundles_it_is_in(
    project: Path, change: Edit, targets: set[str]
) -> None:
    change(project)
    assert reaches(project) == targets


def test_a_plan_says_why_a_bundle_is_made_again(project: Path) -> None:
    edit(project / "conf" / "bundle" / "food.yaml", "description", "Food and tales")
    edit(project / "conf" / "bundle" / "work.yaml", "domains", ["programming", "nutrition"])
    items = {item.step.name: item for item in plan(load(project), [FOOD, WORK]).to_do()}
    said = {name: [cause.text() for cause in item.causes] for name, item in items.items()}
    assert said["bundle/food/bundle"] == [
        "conf/bundle/food.yaml description: Some domains → Food and tales"
    ]
    assert (
        'conf/bundle/work.yaml domains: ["programming"] → ["nutrition", "programming"]'
        in (said["bundle/work/bundle"])
    )


def test_a_bundle_that_follows_from_an_edit_names_it(project: Path) -> None:
    added("nutrition", "train")(project)
    item = next(item for item in plan(load(project), [FOOD]).items if item.step.target == FOOD)
    assert item.action == "MAYBE"
    assert [cause.text() for cause in item.inherited] == [
        "conf/domain/nutrition.jsonl: its content changed"
    ]


def test_a_file_of_a_bundle_that_is_deleted_is_brought_back(project: Path) -> None:
    (project / "artifacts" / FOOD / "index.json").unlink()
    made = plan(load(project), [FOOD])
    assert [(item.step.name, item.action) for item in made.to_do()] == [
        ("bundle/food/bundle", "RESTORE")
    ]
    build(project, [FOOD])
    assert (project / "artifacts" / FOOD / "index.json").is_file()
