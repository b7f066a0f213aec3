"""diff: two builds side by side, in what they were made from and in what came out."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fast_stages import UNREACHED, build, fast_project
from projects import copy_built, edit, override

from meetara_build.cli.diff import diff
from meetara_build.engine.stage_run import run
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.store import journal

Differing = Callable[..., dict[str, dict[str, Any]]]

NAMES = {1: "2026-01-01T00:00:00Z-1", 2: "2026-01-02T00:00:00Z-2", 3: "2026-01-03T00:00:00Z-3"}


def built_as(number: int, project: Path) -> None:
    """Build what is to do, as the build with this number."""
    with mock.patch.dict(os.environ, {journal.BUILD: NAMES[number]}):
        build(project)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project built with stand-ins, once."""
    project = fast_project(tmp_path_factory.mktemp("once") / "project")
    built_as(1, project)
    return project


@pytest.fixture(scope="module")
def twice(once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same built again, with another rank for music and one type less for nutrition."""
    project = copy_built(once, tmp_path_factory.mktemp("twice") / "project")
    override(project, "music", {"lora.rank": 8})
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["F16", "Q4_K_M"])
    built_as(2, project)
    return project


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Differing:
    """``differing(project, "1", "2")``: what programs are told of two builds there, by step."""

    def found(project: Path, one: str, other: str | None = None) -> dict[str, dict[str, Any]]:
        monkeypatch.chdir(project)
        capsys.readouterr()
        diff(one, other, as_json=True)
        return {entry["step"]: entry for entry in json.loads(capsys.readouterr().out)}

    return found


# Which builds there are


def test_without_arguments_the_builds_are_listed(twice: Path, command: Any) -> None:
    rows = json.loads(command(twice, "diff", "--json").stdout)
    assert [(row["number"], row["build"]) for row in rows] == [
        (number, NAMES[number]) for number in (1, 2)
    ]
    assert [(row["runs"], row["built"], row["failed"]) for row in rows] == [
        (35, 35, 0),
        (10, 10, 0),
    ]
    assert {row["machine"] for row in rows} == {journal.machine()}
    lines = command(twice, "diff", COLUMNS="200").stdout.splitlines()
    assert len(lines) == 1 + 2 + 1
    assert re.search(r"\b2  2026-01-02T00:00:00Z +10 +10 +0 ", lines[2])
    assert lines[-1] == "2 builds; compare two with `meetara-build diff 1 2`"


def test_where_nothing_was_built_the_list_is_empty(tmp_path: Path, command: Any) -> None:
    project = fast_project(tmp_path / "project")
    assert json.loads(command(project, "diff", "--json").stdout) == []
    done = command(project, "diff", "1")
    assert (done.returncode, done.stderr) == (
        1,
        "meetara-build: no build 1; there are none yet: see `meetara-build diff` without arguments [config]\n",
    )


@pytest.mark.parametrize("word", ["3", "0", "-3", "last", "1.5", "--1"])
def test_an_unknown_build_is_answered_with_the_known(
    twice: Path, differing: Differing, word: str
) -> None:
    with pytest.raises(ConfigError, match=f"^no build {word}; there are 1 to 2"):
        differing(twice, word)
    with pytest.raises(ConfigError, match=f"^no build {word}; there are 1 to 2"):
        differing(twice, "1", word)


def test_one_build_alone_does_not_differ_from_itself(
    once: Path, differing: Differing, command: Any
) -> None:
    for words in (["1"], ["-1"], ["1", "1"], ["1", "-1"]):
        assert differing(once, *words) == {}
    assert command(once, "diff", "1").stdout == "0 of 35 steps differ between build 1 and build 1\n"


def test_builds_may_be_counted_from_the_last(twice: Path, differing: Differing) -> None:
    both = differing(twice, "1", "2")
    assert both
    for words in (["1"], ["-2"], ["-2", "-1"], ["1", "-1"]):
        assert differing(twice, *words) == both
    assert differing(twice, "-1") == {}


# What differs


def test_changed_keys_are_named_with_both_values(twice: Path, differing: Differing) -> None:
    found = differing(twice, "1")
    assert found["music/adapter"]["recipe"] == ["lora.rank: 16 → 8"]
    assert found["music/adapter"]["state"] == "other files"
    assert (
        "quants: ['F16', 'Q8_0', 'Q4_K_M'] → ['F16', 'Q4_K_M']"
        in found["nutrition/evaluate"]["recipe"]
    )
    assert set(found) == {
        *(f"music/{stage}" for stage in ("adapter", "merge", "gguf", "evaluate", "package")),
        *(f"nutrition/{stage}" for stage in ("gguf", "evaluate", "package")),
        "report/report",
    }


def test_where_only_an_input_changed_it_is_named(twice: Path, differing: Differing) -> None:
    assert differing(twice, "1")["music/evaluate"]["recipe"] == ["its input gguf is another"]


def test_figures_that_changed_are_given_and_others_not(
    twice: Path, differing: Differing, command: Any
) -> None:
    found = differing(twice, "1")
    assert found["nutrition/gguf"]["metrics"] == {"files": [5, 4]}
    assert found["music/adapter"]["metrics"] == {}
    lines = command(twice, "diff", "1").stdout.splitlines()
    at = lines.index("nutrition/gguf  other files")
    assert "  files: 5 → 4" in lines[at : at + 6]
    assert "  lora.rank: 16 → 8" in lines
    assert re.fullmatch(r"\d+ of 35 steps differ between build 1 and build 2", lines[-1])


def test_the_other_way_round_everything_is_turned(twice: Path, differing: Differing) -> None:
    found = differing(twice, "2", "1")
    assert found["music/adapter"]["recipe"] == ["lora.rank: 8 → 16"]
    assert found["nutrition/gguf"]["metrics"] == {"files": [4, 5]}


def test_a_domain_that_only_one_build_had_is_said_to_be(
    once: Path, tmp_path: Path, differing: Differing
) -> None:
    project = copy_built(once, tmp_path / "project")
    edit(
        project / "conf" / "build.yaml",
        "domains",
        ["music", "nutrition", "programming", "storytelling", "legal"],
    )
    built_as(2, project)
    assert differing(project, "1")["legal/adapter"]["state"] == "only in the later"
    assert differing(project, "2", "1")["legal/adapter"]["state"] == "only in the earlier"


def test_results_that_the_store_has_forgotten_are_said_to_be(
    twice: Path, tmp_path: Path, differing: Differing
) -> None:
    project = copy_built(twice, tmp_path / "project")
    shutil.rmtree(project / "artifacts" / "store" / "actions")
    found = differing(project, "1", "2")
    assert found["music/adapter"]["state"] == "no longer in the store"
    assert found["music/adapter"]["recipe"] == []


def test_a_build_that_was_reverted_equals_the_first(
    twice: Path, tmp_path: Path, differing: Differing
) -> None:
    project = copy_built(twice, tmp_path / "project")
    override(project, "music", {"lora.rank": 16})
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["F16", "Q8_0", "Q4_K_M"])
    built_as(3, project)
    assert differing(project, "1", "3") == {}
    assert differing(project, "2", "3") == differing(project, "2", "1")


def test_a_run_that_came_out_the_same_differs_in_its_recipe_alone(
    once: Path, tmp_path: Path, differing: Differing
) -> None:
    project = copy_built(once, tmp_path / "project")
    edit(project / "conf" / "build.yaml", "data.near_group", 0.8)
    built_as(2, project)
    entry = differing(project, "1")["music/dataset"]
    assert (entry["state"], entry["recipe"]) == ("same files", ["near_group: 0.75 → 0.8"])


# With real stages


def test_real_figures_are_compared_with_their_change(
    project: Path, differing: Differing, command: Any
) -> None:
    override(project, "nutrition", {"evaluation.max_records": 2})
    graph = load(project)
    with mock.patch.dict(os.environ, {journal.BUILD: NAMES[3]}):
        for stage in ("baseline", "evaluate"):
            assert run(graph, graph.step(stage, "nutrition"), cold=True) == "built"
    found = differing(project, "-2", "-1")
    assert set(found) == {"nutrition/baseline", "nutrition/evaluate"}
    assert found["nutrition/evaluate"]["recipe"] == ["max_records: none → 2"]
    assert {"base_loss", "improvement"} <= set(found["nutrition/evaluate"]["metrics"])
    said = command(project, "diff", "-2").stdout
    assert re.search(r"^  base_loss: \d\.\d+ → \d\.\d+ \([+-]\d+\.\d%\)$", said, re.MULTILINE)


# A model that is held back


def test_a_build_that_held_a_model_back_differs_in_its_package(
    once: Path, tmp_path: Path, differing: Differing, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_built(once, tmp_path / "project")
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", UNREACHED)
    built_as(2, project)
    found = differing(project, "1", "2")
    assert set(found) == {"nutrition/package"}
    package = found["nutrition/package"]
    assert package["state"] == "other files"
    before, after = package["metrics"]["held_back"]
    assert (before, after["code"]) == (None, "gate-answers")
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.1)
    built_as(3, project)
    back = differing(project, "2", "3")["nutrition/package"]
    assert back["metrics"]["held_back"] == [after, None]
    diff("2", "3", as_json=False)
    assert "held_back: {'code': 'gate-answers'" in capsys.readouterr().out
