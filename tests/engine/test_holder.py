"""Adapters' jobs are forked from a process that holds their base, one for each base and
precision."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import until
from test_warm import gone, server

from meetara_build.engine import job, warm
from meetara_build.engine.holder import find_base
from meetara_build.errors import BuildError
from meetara_build.graph import load

STAGE = "meetara_build.stages.adapter"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own: no warm process is there."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def served(temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A warm process for adapters, and no other."""
    with server(60, STAGE) as process:
        yield process


def request(project: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Have nutrition's adapter trained into ``folder/out``; ``changes`` are the recipe's."""
    graph = load(project)
    step = graph.step("adapter", "nutrition")
    output = folder / "out"
    output.mkdir(parents=True, exist_ok=True)
    places = {name: str(graph.root / given.place.folder) for name, given in step.inputs.items()}
    return {
        "name": step.name,
        "stage": step.stage,
        "recipe": {**step.told, **changes},
        "inputs": places,
        "holds": step.row.holds,
        "output": str(output),
        "threads": 1,
        "report": str(folder / "adapter.traceback"),
        "gpus": 0,
        "root": str(folder),
        "about": {"domain": step.target, "stage": step.stage},
    }


def holders(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def test_jobs_on_one_base_share_the_process_that_holds_it(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    made = []
    for name in ("one", "two"):
        assert warm.ask(request(built_project, tmp_path / name)) == 0
        made.append((tmp_path / name / "out" / WEIGHTS).read_bytes())
    (holder,) = holders(served)
    pid = json.loads((tmp_path / "one" / job.FIGURES).read_text())["pid"]
    assert pid not in (served.pid, holder.pid)
    built = built_project / "artifacts" / "nutrition" / "adapter" / WEIGHTS
    assert made == [built.read_bytes()] * 2


def test_askers_at_once_wait_for_one_holder(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    asked = [request(built_project, tmp_path / name) for name in ("one", "two")]
    asking = [threading.Thread(target=warm.ask, args=(each,)) for each in asked]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(holders(served)) == 1
    assert all((tmp_path / name / "out" / WEIGHTS).is_file() for name in ("one", "two"))


def test_a_changed_base_is_held_by_another(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    asked = request(built_project, tmp_path / "one")
    assert warm.ask(asked) == 0
    other = tmp_path / "base"
    shutil.copytree(asked["inputs"]["base"], other)
    with (other / "manifest.json").open("a") as manifest:
        manifest.write("\n")
    again = request(built_project, tmp_path / "two")
    assert warm.ask({**again, "inputs": {**again["inputs"], "base": str(other)}}) == 0
    assert len(holders(served)) == 2


def test_what_cannot_be_held_is_loaded_by_the_job(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    asked, graph = request(built_project, tmp_path), load(built_project)
    dora = {**asked["recipe"], "lora": {**asked["recipe"]["lora"], "dora": True}}
    assert find_base(asked) is not None
    assert find_base({**asked, "recipe": dora}) is None
    assert find_base({**asked, "recipe": {**asked["recipe"], "device": "cuda"}}) is None
    assert find_base({**asked, "recipe": {**asked["recipe"], "slots": 4}}) is None
    assert find_base({**asked, "holds": graph.step("merge", "nutrition").row.holds}) is None
    assert warm.ask({**asked, "recipe": dora}) == 0
    assert holders(served) == []


def test_a_base_that_cannot_be_loaded_is_refused_by_the_job(
    built_project: Path,
    tmp_path: Path,
    served: subprocess.Popen[bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked = request(built_project, tmp_path)
    broken = tmp_path / "base"
    shutil.copytree(asked["inputs"]["base"], broken)
    (broken / "model.safetensors").write_bytes(b"no tensors")
    assert warm.ask({**asked, "inputs": {**asked["inputs"], "base": str(broken)}}) == 1
    said = capfd.readouterr().err
    assert "no base that can be loaded" in said
    assert "Traceback" not in said
    assert holders(served) == []


def test_a_killed_holder_takes_its_jobs_along_and_the_next_job_finds_another(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    assert warm.ask(request(built_project, tmp_path / "one")) == 0
    (holder,) = holders(served)
    asked = request(built_project, tmp_path / "two")
    dataset = tmp_path / "dataset"
    shutil.copytree(asked["inputs"]["dataset"], dataset)
    (dataset / "train.jsonl").unlink()
    os.mkfifo(dataset / "train.jsonl")  # the job waits for records that never come
    endless = {**asked, "inputs": {**asked["inputs"], "dataset": str(dataset)}}

    def kill() -> None:
        waiting = until(lambda: psutil.Process(holder.pid).children())[0]
        holder.send_signal(signal.SIGKILL)
        until(lambda: gone(waiting), 5)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        BuildError, match=r"nutrition/adapter: the warm process was ended.*build again"
    ):
        warm.ask(endless)
    killer.join()
    assert warm.ask(request(built_project, tmp_path / "three")) == 0
    assert len(holders(served)) == 1


def test_all_end_when_no_job_has_come_for_a_while(
    built_project: Path, tmp_path: Path, temporary: Path
) -> None:
    with server(2, STAGE) as process:
        assert warm.ask(request(built_project, tmp_path)) == 0
        (holder,) = holders(process)
        assert process.wait(40) == 0
        assert gone(holder)
    assert list(temporary.rglob("*.sock")) == []
