"""What killed builds left behind goes when the next build begins; what is needed, or in use,
stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import contents, fill
from fast_stages import build
from projects import copy_built, edit, override

from meetara_build.engine.cleanup import sweep
from meetara_build.graph import Graph, load, work_folder
from meetara_build.plan import plan

GONE = "999999999"
"""The id of a process that cannot be."""
KEY, OTHER_KEY = "ab" * 32, "cd" * 32


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def live() -> Iterator[str]:
    """The id of a process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield str(process.pid)
    process.kill()
    process.wait()


def swept(project: Path, *domains: str) -> int:
    graph = load(project)
    return sweep(graph, plan(graph, domains), domains)


def left(graph: Graph, stage: str, target: str, key: str, pid: str = GONE) -> Path:
    """What a killed run of a step leaves: its checkpoint, and half of its output."""
    folder = work_folder(graph, graph.step(stage, target), key)
    fill(
        folder,
        {
            "checkpoint/state.pt": b"half trained",
            f"out-{pid}/adapter_model.safetensors": b"half written",
        },
    )
    return folder


def test_a_report_that_its_process_never_showed_goes_after_a_while(project: Path) -> None:
    hidden = project / "artifacts" / ".outbox" / ".1-2.reports"
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_text("")
    assert swept(project) == 0
    os.utime(hidden, (1e9, 1e9))
    assert swept(project) == 1
    assert not hidden.exists()


def test_after_a_build_that_ended_there_is_nothing_to_remove(project: Path) -> None:
    before = contents(project / "artifacts")
    assert swept(project) == 0
    assert contents(project / "artifacts") == before


def test_what_a_killed_run_of_a_finished_step_left_is_removed(project: Path) -> None:
    graph = load(project)
    folders = [
        left(graph, *step, KEY)
        for step in (("adapter", "nutrition"), ("base", "base/mini"), ("report", "report"))
    ]
    assert swept(project) == 3
    assert [folder.exists() for folder in folders] == [False] * 3


def test_a_step_that_is_still_to_do_keeps_the_checkpoint_it_goes_on_from(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    graph = load(project)
    (item,) = [item for item in plan(graph).items if item.step.name == "nutrition/adapter"]
    assert item.key, "its inputs are known"
    current, former = (
        left(graph, "adapter", "nutrition", item.key),
        left(graph, "adapter", "nutrition", KEY),
    )
    assert swept(project) == 1
    assert (current / "checkpoint" / "state.pt").exists()
    assert not former.exists(), "no build goes on from work of another recipe"


def test_a_step_whose_inputs_are_not_known_yet_keeps_every_checkpoint(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8, "data.test": 0.3})
    graph = load(project)
    (item,) = [item for item in plan(graph).items if item.step.name == "nutrition/adapter"]
    assert not item.key
    folders = [left(graph, "adapter", "nutrition", key) for key in (KEY, OTHER_KEY)]
    swept(project)
    assert [folder.exists() for folder in folders] == [True, True]


def test_a_folder_in_which_a_live_process_works_stays(project: Path, live: str) -> None:
    graph = load(project)
    in_use, abandoned = (
        left(graph, "adapter", name, KEY, pid)
        for name, pid in (("music", live), ("nutrition", GONE))
    )
    assert swept(project) == 1
    assert in_use.exists()
    assert not abandoned.exists()


def test_a_merged_model_that_nobody_needs_any_more_goes(project: Path) -> None:
    merged = fill(
        project / "artifacts" / "nutrition" / "merged",
        {"model.safetensors": b"large", "manifest.json": b"{}"},
    )
    assert swept(project) == 1
    assert not merged.exists()
    assert not plan(load(project)).to_do()


def test_a_merged_model_that_is_still_needed_stays(project: Path) -> None:
    override(project, "nutrition", {"gguf.files": "merged"})
    merged = fill(
        project / "artifacts" / "nutrition" / "merged",
        {"model.safetensors": b"large", "manifest.json": b"{}"},
    )
    assert swept(project) == 0
    assert merged.exists()


def test_merged_models_that_are_to_be_kept_stay(project: Path) -> None:
    edit(project / "conf" / "build.yaml", "keep_merged", True)
    build(project)
    assert swept(project) == 0
    assert len(list((project / "artifacts").glob("*/merged/model.safetensors"))) == 4


def test_half_written_files_of_dead_processes_are_removed_and_of_live_ones_not(
    project: Path, live: str
) -> None:
    root = project / "artifacts"
    names = [
        "nutrition/gguf/.nutrition-F16.gguf",
        "nutrition/evaluation/.manifest.json",
        "base/mini/model/.manifest.json",
    ]
    fill(root, {f"{name}.{pid}": b"half" for name in names for pid in (GONE, live)})
    fill(root, {"nutrition/gguf/.hidden": b"not ours"})
    assert swept(project) == 3
    assert [(root / f"{name}.{live}").exists() for name in names] == [True] * 3
    assert (root / "nutrition" / "gguf" / ".hidden").exists()


def test_what_belongs_to_domains_that_are_not_built_now_is_left_alone(project: Path) -> None:
    graph = load(project)
    own, neighbour = left(graph, "adapter", "nutrition", KEY), left(graph, "adapter", "music", KEY)
    fill(project / "artifacts", {f"music/gguf/.music-F16.gguf.{GONE}": b"half"})
    assert swept(project, "nutrition") == 1
    assert not own.exists()
    assert neighbour.exists()
    assert len(list((project / "artifacts" / "music" / "gguf").glob(".music*"))) == 1


def test_a_domain_whose_name_begins_like_another_s_is_told_from_it(project: Path) -> None:
    """A work folder is called by its step and 16 digits: ``nutrition-adapter-…`` is nobody
    else's."""
    foreign = fill(
        project / "artifacts" / ".work" / "nutrition-adapter-of-ours", {"notes.txt": b"mine"}
    )
    assert swept(project) == 0
    assert foreign.exists()


def test_a_second_sweep_finds_nothing_more(project: Path) -> None:
    graph = load(project)
    made = plan(graph)
    left(graph, "adapter", "nutrition", KEY)
    assert sweep(graph, made, []) == 1
    assert sweep(graph, made, []) == 0
    assert list((project / "artifacts" / ".work").iterdir()) == []
