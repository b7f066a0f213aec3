"""Why a step has something to do: every difference is named, none that is not there, each in a line
that people can read."""

import copy
from pathlib import Path
from typing import Any

import pytest
from fast_stages import build, fast_project

from meetara_build.graph import Graph, Step, load
from meetara_build.plan.causes import (
    ABOVE,
    CODE,
    CONFIG,
    DRIFT,
    INPUT,
    LIBRARY,
    NEW,
    SOURCE,
    TEMPORARY,
    Cause,
    drift_causes,
    manifest_drift,
    own_causes,
    recipe_causes,
)
from meetara_build.store.manifest import MISSING, Manifest

# Lines


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Cause(NEW, ""), "not built yet"),
        (Cause(TEMPORARY, ""), "temporary, and needed again"),
        (Cause(ABOVE, ""), "the recipes of the stages before, which its metadata name"),
        (Cause(CONFIG, "conf/build.yaml", "lora.rank", 16, 8), "conf/build.yaml lora.rank: 16 → 8"),
        (
            Cause(CONFIG, "conf/build.yaml", "training.max_steps", None, 9),
            "conf/build.yaml training.max_steps: none → 9",
        ),
        (
            Cause(CONFIG, "conf/build.yaml", "gguf.files", "both", "merged"),
            "conf/build.yaml gguf.files: both → merged",
        ),
        (Cause(CONFIG, "conf/domain/a.yaml", "", None, "a"), "conf/domain/a.yaml: none → a"),
        (
            Cause(CONFIG, "conf/domain/a.yaml", "description", "x" * 41, "y" * 40),
            f"conf/domain/a.yaml description: {'x' * 37}… → {'y' * 40}",
        ),
        (
            Cause(CODE, "meetara_build/stages/merge.py", "", "1", "2"),
            "meetara_build/stages/merge.py: its code changed",
        ),
        (
            Cause(CODE, "meetara_build/stages/merge.py", "", None, "2"),
            "meetara_build/stages/merge.py: new",
        ),
        (
            Cause(CODE, "meetara_build/stages/merge.py", "", "1", None),
            "meetara_build/stages/merge.py: no longer used",
        ),
        (
            Cause(CODE, "nutrition/merge", "", "1", "2"),
            "nutrition/merge: made by another version of the tool",
        ),
        (Cause(LIBRARY, "torch", "", "2.12", "2.13"), "torch: 2.12 → 2.13"),
        (
            Cause(SOURCE, "conf/domain/a.jsonl", "", "1", "2"),
            "conf/domain/a.jsonl: its content changed",
        ),
        (Cause(SOURCE, "conf/domain/a.jsonl", "", None, "2"), "conf/domain/a.jsonl: new"),
        (
            Cause(SOURCE, "conf/domain/a.jsonl", "", "1", None),
            "conf/domain/a.jsonl: no longer used",
        ),
        (Cause(SOURCE, "Plan: 0 to run", "", "1", "2"), "'Plan: 0 to run': its content changed"),
        (
            Cause(CONFIG, "conf/domain/a.yaml", "system_prompt", "a", "b\x1b[2J\nPlan: 0 to run"),
            "conf/domain/a.yaml system_prompt: a → b\\x1b[2J\\nPlan: 0 to run",
        ),
        (Cause(INPUT, "nutrition/adapter"), "nutrition/adapter: its result is another"),
        (
            Cause(DRIFT, "artifacts/a/README.md", "", None, MISSING),
            "artifacts/a/README.md: missing",
        ),
    ],
)
def test_a_cause_is_said_in_one_line(cause: Cause, said: str) -> None:
    assert cause.text() == said


# What an artifact was not made from


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Of a project built with stand-ins."""
    project = fast_project(tmp_path_factory.mktemp("causes") / "project")
    build(project)
    return load(project)


def made_otherwise(step: Step, **parts: Any) -> dict[str, Any]:
    """What a step is made from, some keys of its parts otherwise."""
    found = copy.deepcopy(step.made_from)
    for part, values in parts.items():
        for key, value in values.items():
            found[part][key] = value
    return found


def test_what_is_made_from_the_same_has_no_cause(graph: Graph) -> None:
    for step in graph.steps.values():
        assert recipe_causes(graph, step, copy.deepcopy(step.made_from)) == []


def test_a_key_a_module_a_library_and_a_source_are_named(graph: Graph) -> None:
    step = graph.step("dataset", "nutrition")
    old = made_otherwise(
        step,
        recipe={"near_group": 0.5, "languages": ["de"]},
        code={"stages.dataset.clean": "0", "stages.dataset.gone": "1"},
        libraries={"ftfy": "1.0"},
        sources={"source_0": "0" * 64, "source_1": "1" * 64},
    )
    assert [cause.text() for cause in recipe_causes(graph, step, old)] == [
        'conf/domain/nutrition.yaml languages: ["de"] → ["en", "es", "hi"]',
        "conf/build.yaml data.near_group: 0.5 → 0.75",
        "meetara_build/stages/dataset/clean.py: its code changed",
        "meetara_build/stages/dataset/gone.py: no longer used",
        f"ftfy: 1.0 → {step.made_from['libraries']['ftfy']}",
        "conf/domain/nutrition.jsonl: its content changed",
        "source_1: no longer used",
    ]


def test_a_key_that_stands_twice_in_a_recipe_is_one_cause(graph: Graph) -> None:
    step = graph.step("gguf", "nutrition")
    old = made_otherwise(step, recipe={"name": "another", "domain": "another"})
    assert [cause.text() for cause in recipe_causes(graph, step, old)] == [
        "conf/domain/nutrition.yaml: another → nutrition"
    ]


def test_the_recipes_before_a_gguf_file_are_one_cause_without_a_file(graph: Graph) -> None:
    step = graph.step("gguf", "nutrition")
    assert recipe_causes(graph, step, made_otherwise(step, recipe={"recipe": "0" * 64})) == [
        Cause(ABOVE, "")
    ]


def manifest_of(step: Step, fingerprint: str, made_from: dict[str, Any]) -> Manifest:
    return Manifest(step.stage, step.target, fingerprint, made_from, {}, {}, {})


def test_a_step_without_a_manifest_is_not_built_yet(graph: Graph) -> None:
    assert own_causes(graph, graph.step("merge", "nutrition"), None) == [Cause(NEW, "")]


def test_a_step_of_the_same_fingerprint_has_no_cause_of_its_own(graph: Graph) -> None:
    step = graph.step("merge", "nutrition")
    assert own_causes(graph, step, manifest_of(step, step.fingerprint, {})) == []


def test_another_fingerprint_has_a_cause_even_if_nothing_else_tells(graph: Graph) -> None:
    step = graph.step("merge", "nutrition")
    (cause,) = own_causes(graph, step, manifest_of(step, "0" * 64, step.made_from))
    assert cause.text() == "nutrition/merge: made by another version of the tool"


def test_a_manifest_of_an_older_form_still_has_causes(graph: Graph) -> None:
    step = graph.step("merge", "nutrition")
    found = own_causes(graph, step, manifest_of(step, "0" * 64, {}))
    assert {cause.kind for cause in found} == {CONFIG, CODE, LIBRARY, ABOVE}


def test_files_changed_behind_the_tool_s_back_are_named_as_seen_from_the_project(
    graph: Graph,
) -> None:
    step = graph.step("evaluate", "nutrition")
    found = [*drift_causes(graph, step, {"evaluation.json": MISSING}), manifest_drift(graph, step)]
    assert {cause.kind for cause in found} == {DRIFT}
    assert [cause.text() for cause in found] == [
        "artifacts/nutrition/evaluation/evaluation.json: missing",
        "artifacts/nutrition/evaluation/manifest.json: missing",
    ]


def test_a_source_outside_the_project_is_named_by_its_whole_path(
    graph: Graph, tmp_path: Path
) -> None:
    step = graph.step("dataset", "nutrition")
    elsewhere = step._replace(sources={"source_0": str(tmp_path / "mine.jsonl")})
    (cause,) = recipe_causes(graph, elsewhere, made_otherwise(step, sources={"source_0": "0" * 64}))
    assert cause.where == str(tmp_path / "mine.jsonl")
