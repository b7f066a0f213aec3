"""explain: what made a domain, a stage or a file, and what would change it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fast_stages import REASON, build
from projects import copy_built, edit, override, read_yaml

from meetara_build.cli.explain import explain
from meetara_build.errors import ArtifactError, ConfigError
from meetara_build.graph import load
from meetara_build.store.manifest import read_manifest

Explained = Callable[[Path, str], list[dict[str, Any]]]


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explained:
    """``explained(folder, "nutrition")``: what programs are told of it there."""

    def found(folder: Path, what: str) -> list[dict[str, Any]]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        explain(what, "local", as_json=True)
        entries: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return entries

    return found


def steps(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["step"] for entry in entries]


# What can be asked for


def test_a_domain_is_explained_stage_by_stage(built: Path, explained: Explained) -> None:
    stages = ["dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package"]
    assert steps(explained(built, "nutrition")) == [f"nutrition/{stage}" for stage in stages]


MINI = ("corpus", "base", "gguf", "imatrix")


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("nutrition/adapter", ["nutrition/adapter"]),
        ("base/mini", [f"base/mini/{stage}" for stage in MINI]),
        ("base/mini/corpus", ["base/mini/corpus"]),
        ("base/other", ["base/other/base", "base/other/gguf"]),
        ("report/report", ["report/report"]),
        ("artifacts/nutrition/gguf/nutrition-Q8_0.gguf", ["nutrition/gguf"]),
        ("nutrition/gguf/nutrition-Q8_0.gguf", ["nutrition/gguf"]),
        ("artifacts/nutrition/gguf/manifest.json", ["nutrition/gguf"]),
        ("artifacts/nutrition/evaluation/evaluation.json", ["nutrition/evaluate"]),
        ("artifacts/nutrition/evaluation/manifest.json", ["nutrition/evaluate"]),
        ("artifacts/base/mini/model/model.safetensors", ["base/mini/base"]),
        ("artifacts/base/mini/corpus/corpus.jsonl", ["base/mini/corpus"]),
    ],
)
def test_a_stage_a_base_or_a_file_is_found_by_its_name(
    built: Path, explained: Explained, what: str, found: list[str]
) -> None:
    assert steps(explained(built, what)) == found


def test_a_file_is_found_by_its_whole_path_and_from_any_folder(
    built: Path, explained: Explained
) -> None:
    folder = built / "artifacts" / "nutrition" / "package"
    assert steps(explained(built, str(folder / "README.md"))) == ["nutrition/package"]
    assert steps(explained(folder, "README.md")) == ["nutrition/package"]
    assert steps(explained(folder, "../evaluation/evaluation.json")) == ["nutrition/evaluate"]


def test_a_merged_model_is_explained_although_it_was_temporary(
    built: Path, explained: Explained
) -> None:
    assert not (built / "artifacts" / "nutrition" / "merged").exists()
    (entry,) = explained(built, "nutrition/merge")
    assert set(entry["inputs"]) == {
        *("base/mini/base", "base/mini/gguf"),
        *("nutrition/adapter", "nutrition/dataset"),
    }
    assert "nutrition-F16.gguf" in entry["files"]
    assert entry["state"] == "fresh"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nutritoin", "unknown domain 'nutritoin'; did you mean 'nutrition'?"),
        ("nutritoin/adapter", "unknown domain 'nutritoin'; did you mean 'nutrition'?"),
        (
            "nutrition/adaptor",
            "nutrition/adaptor: nutrition has no such stage, and there is no such file; did you mean 'adapter'?",
        ),
        ("base/mnii", "did you mean 'base/mini'?"),
        ("", "known: music, nutrition, programming, storytelling"),
        ("artifacts/nutrition/gguf/nutrition-Q2_K.gguf", "no domain, stage or file of this build"),
        ("artifacts/runs.jsonl", "artifacts/runs.jsonl: no step of this build made it"),
    ],
)
def test_what_there_is_not_is_answered_with_the_nearest(
    built: Path, explained: Explained, what: str, said: str
) -> None:
    with pytest.raises(ConfigError) as fault:
        explained(built, what)
    assert said in str(fault.value)


def test_a_mistake_is_one_line_and_exit_status_1(built: Path, command: Any) -> None:
    done = command(built, "explain", "nutritoin")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "meetara-build: unknown domain 'nutritoin'; did you mean 'nutrition'? [config]\n"
    )


def test_what_is_not_built_yet_says_what_to_do(project: Path, explained: Explained) -> None:
    shutil.rmtree(project / "artifacts")
    for what in ("music", "music/adapter", "base/mini", "music/merge"):
        with pytest.raises(
            ArtifactError,
            match="not built yet; run `meetara-build build`, or see `meetara-build plan`",
        ):
            explained(project, what)


# What is said


def test_all_that_decides_an_artifact_is_said(built: Path, explained: Explained) -> None:
    (entry,) = explained(built, "nutrition/dataset")
    manifest = read_manifest(built / "artifacts" / "nutrition" / "dataset" / "manifest.json")
    assert entry["files"] == manifest.files
    assert entry["inputs"] == {"base/mini/base": manifest.inputs["base"]}
    assert entry["sources"] == {
        "conf/domain/nutrition.jsonl": manifest.made_from["sources"]["source_0"],
        "conf/sample.jsonl": manifest.made_from["sources"]["sample"],
    }
    assert entry["libraries"] == manifest.made_from["libraries"]
    assert entry["metrics"] == manifest.metrics
    assert entry["fingerprint"] == manifest.fingerprint
    assert "meetara_build/stages/dataset/clean.py" in entry["code"]
    assert len(entry["code"]) == len(manifest.made_from["code"])
    assert (entry["decisions"], entry["state"]) == ([], "fresh")


def test_every_key_comes_with_its_file_and_its_value(built: Path, explained: Explained) -> None:
    keys = {
        (line["file"], line["key"]): line["value"]
        for line in explained(built, "programming/adapter")[0]["keys"]
    }
    assert keys["conf/build.yaml", "lora.rank"] == 16
    assert keys["conf/base/mini.yaml", "training.epochs"] == 2
    assert keys["conf/hardware/cpu.yaml", "precision"] == "float32"
    assert keys["conf/overlay/programming.yaml", "training.weight_decay"] == 0.01
    assert ("conf/build.yaml", "training.epochs") not in keys


@pytest.mark.parametrize("what", ["nutrition", "base/mini", "base/other", "report/report"])
def test_every_file_that_is_named_is_there(built: Path, explained: Explained, what: str) -> None:
    named = {line["file"] for entry in explained(built, what) for line in entry["keys"]}
    assert {file for file in named if not (built / file).exists()} <= {"the stages before"}


def test_the_run_that_made_it_is_said(built: Path, explained: Explained) -> None:
    (entry,) = explained(built, "nutrition/adapter")
    run = entry["run"]
    assert (run["stage"], run["target"], run["outcome"]) == ("adapter", "nutrition", "built")
    assert run["size"] == sum(file["size"] for file in entry["files"].values())
    assert run["machine"] and run["seconds"] > 0 and run["peak_mb"] > 0


def test_an_agent_s_decision_is_said_with_its_reason(
    built: Path, explained: Explained, command: Any
) -> None:
    (taken,) = read_yaml(built / "conf" / "overlay" / "programming.yaml")["decisions"]
    (decision,) = explained(built, "programming/adapter")[0]["decisions"]
    assert decision == {
        "key": "training.weight_decay",
        "below": 0.0,
        "value": taken["value"],
        "agent": taken["agent"],
        "reason": taken["reason"],
        "path": "conf/overlay/programming.yaml",
    }
    assert explained(built, "programming/dataset")[0]["decisions"] == []
    said = command(built, "explain", "programming/adapter").stdout
    line = f"  decided  training.weight_decay: 0.0 → {taken['value']}, by {taken['agent']}: {taken['reason']}\n"
    assert line in said


def test_people_are_told_the_same_in_lines(built: Path, command: Any) -> None:
    done = command(built, "explain", "nutrition/gguf")
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "nutrition/gguf  fresh"
    assert lines[1].startswith("  built ")
    assert [line.split()[1] for line in lines if line.startswith("  made ")] == [
        "nutrition-F16.gguf",
        "nutrition-Q4_K_M.gguf",
        "nutrition-Q8_0.gguf",
        "nutrition-lora.gguf",
        "proof.json",
    ]
    assert {line.split()[1] for line in lines if line.startswith("  from ")} == {
        "base/mini/base",
        "base/mini/gguf",
        "base/mini/imatrix",
        "nutrition/adapter",
        "nutrition/dataset",
        "nutrition/merge",
    }
    assert [
        line
        for line in lines
        if line.startswith("  by       conf/build.yaml: ") and "gguf.files=both" in line
    ]
    assert [
        line
        for line in lines
        if line.startswith("  by       code: ") and "stages/gguf/convert.py" in line
    ]
    assert [line for line in lines if line.startswith("  by ") and "torch 2." in line]
    assert lines[-1].startswith("  A change of any of the keys, files and versions above")


def test_a_stale_artifact_is_explained_as_it_was_made_and_says_what_has_changed(
    project: Path, explained: Explained
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    adapter, package = (
        explained(project, f"nutrition/{stage}")[0] for stage in ("adapter", "package")
    )
    assert adapter["state"] == "RUN: conf/domain/nutrition.yaml lora.rank: 16 → 8"
    assert 16 in [line["value"] for line in adapter["keys"] if line["key"] == "lora.rank"]
    assert package["state"].startswith("RUN: conf/domain/nutrition.yaml description: ")
    assert "lora.rank: 16 → 8" in package["state"]


def test_an_artifact_that_was_restored_tells_when(project: Path, explained: Explained) -> None:
    (project / "artifacts" / "nutrition" / "package" / "README.md").unlink()
    build(project)
    assert explained(project, "nutrition/package")[0]["run"]["outcome"] == "restored"


def test_explaining_writes_nothing_below_the_root(project: Path, explained: Explained) -> None:
    graph = load(project)
    before = sorted(os.fspath(path) for path in graph.root.rglob("*"))
    explained(project, "nutrition")
    assert sorted(os.fspath(path) for path in graph.root.rglob("*")) == before


# A model that is held back


def test_a_package_that_is_held_back_is_explained_with_its_last_run_and_the_reason(
    held_back: Path, explained: Explained, capsys: pytest.CaptureFixture[str]
) -> None:
    [entry] = explained(held_back, "nutrition/package")
    assert entry["state"] == "fresh"
    assert set(entry["files"]) == {"README.md", "answers.jsonl", "verdict.json"}
    assert entry["metrics"]["held_back"]["code"] == "gate-answers"
    assert (entry["run"]["outcome"], entry["run"]["code"]) == ("failed", "gate-answers")
    assert entry["run"]["fingerprint"] == entry["fingerprint"]
    explain("nutrition/package", "local", as_json=False)
    assert f"  held back: {REASON} [gate-answers]" in capsys.readouterr().out.splitlines()


def test_a_list_that_answers_are_held_to_is_explained_by_its_file(
    built: Path, explained: Explained
) -> None:
    [entry] = explained(built, "nutrition/package")
    named = {(line["file"], line["key"]) for line in entry["keys"]}
    assert {
        ("conf/safety/es.yaml", "call"),
        ("conf/safety/en.yaml", "turn_to.doctor"),
        ("conf/build.yaml", "answers.bounds.strict.calls"),
        ("conf/base/mini.yaml", "answers.bounds.strict.doses"),
    } <= named
    [entry] = explained(built, "music/package")
    assert "conf/safety/es.yaml" not in {line["file"] for line in entry["keys"]}
