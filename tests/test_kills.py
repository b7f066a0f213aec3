"""Killed at any moment, a build leaves nothing that runs and nothing that a later build takes for
finished."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
from commands import models, processes, start, until
from projects import copy_built, edit, override

Victim = Callable[[Popen[str], Path], None]


@pytest.fixture(scope="module")
def fast(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one domain whose five steps after the data set take little, and have to be
    worked out."""
    project = copy_built(built_project, tmp_path_factory.mktemp("fast") / "project")
    edit(project / "conf" / "build.yaml", "domains", ["storytelling"])
    edit(project / "conf" / "build.yaml", "evaluation.max_records", 2)
    edit(project / "conf" / "build.yaml", "gguf.imatrix.enabled", False)
    override(
        project,
        "storytelling",
        {
            "training.max_steps": 4,
            "training.epochs": 1,
            "training.learning_rate": 1e-2,
            "training.checkpoint_seconds": 1,
        },
    )
    edit(project / "conf" / "domain" / "storytelling.yaml", "quants", ["Q8_0"])
    for name in ("adapter", "merged", "gguf", "package"):
        shutil.rmtree(project / "artifacts" / "storytelling" / name, ignore_errors=True)
    return project


@pytest.fixture(scope="module")
def uninterrupted(
    fast: Path, warm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What a build that no one disturbs makes."""
    project = copy_built(fast, tmp_path_factory.mktemp("uninterrupted") / "project")
    _build(project, warm_folder)
    return models(project)


def _build(project: Path, temporary: Path) -> None:
    build = start(project, "build", TMPDIR=str(temporary))
    said, complained = build.communicate(timeout=200)
    assert build.returncode == 0, said + complained


def the_whole_group(build: Popen[str], project: Path) -> None:
    """As the kernel does when a container ends."""
    os.killpg(build.pid, signal.SIGKILL)


def the_command_alone(build: Popen[str], project: Path) -> None:
    """meetara-build, whose children live on if nothing is done about it."""
    build.kill()


def snakemake_alone(build: Popen[str], project: Path) -> None:
    """As when memory runs out."""
    _kill(build, project, "-m snakemake")


def a_job_s_client(build: Popen[str], project: Path) -> None:
    """One `meetara-build stage` of those running."""
    _kill(build, project, "meetara_build stage")


def ctrl_c(build: Popen[str], project: Path) -> None:
    """As a terminal sends it: to the whole group."""
    os.killpg(build.pid, signal.SIGINT)


def _kill(build: Popen[str], project: Path, mark: str) -> None:
    """Kill the next such process; between two jobs there is none for a moment."""
    until(lambda: build.poll() is not None or processes(project, mark), 60)
    for process in processes(project, mark)[:1]:
        process.kill()


def _disturbed(
    project: Path, temporary: Path, after: str, wait: float, kill: Victim
) -> tuple[str, int]:
    """Start a build and kill a part of it, a moment after the log of a step has appeared; what it
    said, and its status."""
    build = start(project, "build", TMPDIR=str(temporary))
    log = project / "artifacts" / "logs" / "storytelling" / f"{after}.log"
    until(
        lambda: (
            build.poll() is not None
            or (not after and processes(project, "-m snakemake"))
            or log.exists()
        ),
        120,
    )
    time.sleep(wait)
    kill(build, project)
    said, complained = build.communicate(timeout=60)
    assert "Traceback" not in said + complained
    return complained, build.returncode


def _goes_on(project: Path, temporary: Path, expected: dict[str, str]) -> None:
    """No process is left, nothing unfinished counts as finished, and the next build makes what it
    should."""
    until(lambda: not processes(project), 10)
    _build(project, temporary)
    assert models(project) == expected
    assert not list((project / "artifacts").glob(".work/*"))
    assert not processes(project)


@pytest.mark.parametrize(
    ("after", "wait", "kill"),
    [
        ("", 0.0, the_whole_group),
        ("evaluate", 0.2, the_whole_group),
        ("adapter", 0.3, the_command_alone),
        ("adapter", 0.3, snakemake_alone),
        ("gguf", 0.0, a_job_s_client),
        ("gguf", 0.2, ctrl_c),
    ],
)
def test_a_build_goes_on_after_a_kill(
    fast: Path,
    uninterrupted: dict[str, str],
    warm_folder: Path,
    tmp_path: Path,
    after: str,
    wait: float,
    kill: Victim,
) -> None:
    project = copy_built(fast, tmp_path / "project")
    said, status = _disturbed(project, warm_folder, after, wait, kill)
    assert status != 0
    if kill is ctrl_c:
        assert status == 130
        assert "stopped; what is finished is kept, and the same command goes on from there" in said
    _goes_on(project, warm_folder, uninterrupted)


def test_a_build_goes_on_after_its_warm_process_is_killed(
    fast: Path, uninterrupted: dict[str, str], tmp_path: Path
) -> None:
    project = copy_built(fast, tmp_path / "project")
    temporary = tmp_path / "warm"
    temporary.mkdir()

    def warm(build: Popen[str], project: Path) -> None:
        for process in processes(temporary, "meetara_build.engine.warm"):
            process.kill()

    said, status = _disturbed(project, temporary, "merge", 0.1, warm)
    assert status in (0, 1)  # 0 where it hit between two jobs
    if status == 1:
        assert "the warm process was ended during the job; build again" in said
    try:
        _goes_on(project, temporary, uninterrupted)
    finally:
        for process in processes(temporary):
            process.kill()


def test_training_goes_on_from_its_checkpoint(
    built_project: Path, warm_folder: Path, tmp_path: Path, command: Any
) -> None:
    """SIGKILL to the client during training: its checkpoint stays, the next run uses it, and then
    it is gone."""
    project = copy_built(built_project, tmp_path / "project")
    override(project, "nutrition", {"training.epochs": 6, "training.checkpoint_seconds": 1})
    whole = copy_built(project, tmp_path / "whole")
    work = project / "artifacts" / ".work"
    client = start(project, "stage", "adapter", "nutrition", TMPDIR=str(warm_folder))
    until(
        lambda: [path for path in work.glob("*/checkpoint/*") if not path.name.startswith(".")], 60
    )
    client.kill()
    client.communicate()
    until(
        lambda: (
            not [
                process
                for process in psutil.process_iter(["cwd"])
                if process.info["cwd"] == str(project)
            ]
        ),
        5,
    )
    time.sleep(0.2)
    assert list(work.glob("*/checkpoint/*"))
    assert command(project, "stage", "adapter", "nutrition").returncode == 0
    assert not list(work.glob("*"))
    assert command(whole, "stage", "adapter", "nutrition").returncode == 0
    made = "artifacts/nutrition/adapter/adapter_model.safetensors"
    assert models(project)[made] == models(whole)[made]
