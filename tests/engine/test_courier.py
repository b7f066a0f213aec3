"""The courier delivers while jobs run, where others wait; where nobody does there is none."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from commands import processes, until
from projects import copy_built, edit, override

from meetara_build.context.delivery import waiting_files
from meetara_build.context.local import Local
from meetara_build.context.outbox import Outbox, folder
from meetara_build.context.places import URL
from meetara_build.context.store import Retention
from meetara_build.engine import courier
from meetara_build.engine.stage_run import run
from meetara_build.graph import load

SAMPLE = {"cpu_percent": 1.0, "memory_mb": 1.0, "available_mb": 1.0, "total_mb": 1.0}


@pytest.fixture(autouse=True)
def no_courier_stays(tmp_path: Path) -> Iterator[None]:
    yield
    for process in processes(tmp_path, "meetara_build.engine.courier"):
        process.kill()


@pytest.fixture
def project(built_project: Path, tmp_path: Path) -> Path:
    """A built project of the test's own, of which all was told."""
    project = copy_built(built_project, tmp_path / "project")
    shutil.rmtree(folder(project / "artifacts"), ignore_errors=True)
    return project


def say(root: Path, count: int = 1) -> None:
    box = Outbox(root, domain="nutrition", stage="adapter")
    for _ in range(count):
        box.put("sample", **SAMPLE)
    box.close()


def couriers(project: Path) -> int:
    return len(processes(project, "meetara_build.engine.courier"))


def test_a_context_here_needs_no_courier(project: Path) -> None:
    graph = load(project)
    say(graph.root)
    courier.start(graph)
    assert couriers(project) == 0
    assert waiting_files(graph.root) == 1


def test_where_much_waits_a_courier_takes_it_in_and_ends(project: Path) -> None:
    graph = load(project)
    for _ in range(5):
        say(graph.root)
    with mock.patch.object(courier, "MANY", 3):
        courier.start(graph)
    until(lambda: waiting_files(graph.root) == 0)
    context = Local(f"sqlite:///{graph.root / 'context.db'}", Retention())
    assert len([row for row in context.store.export() if row["kind"] == "sample"]) == 5
    context.close()


def test_there_is_one_courier_at_a_time(project: Path) -> None:
    graph = load(project)
    with mock.patch.object(courier, "is_elsewhere", return_value=True):
        courier.start(graph)
        until(lambda: (folder(graph.root) / "courier.lock").exists() and couriers(project) == 1)
        time.sleep(1)
        for _ in range(3):
            courier.start(graph)
    second = subprocess.run(
        [sys.executable, "-m", "meetara_build.engine.courier"], cwd=project, timeout=30, check=False
    )
    assert second.returncode == 0
    assert couriers(project) == 1


def test_a_job_goes_on_where_no_courier_can_start(project: Path) -> None:
    graph = load(project)
    folder(graph.root).write_text("a file where the outbox should be")
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.001)
    graph = load(project)
    assert run(graph, graph.step("package", "nutrition"), cold=True) == "built"


def test_what_a_build_reports_reaches_a_database_elsewhere_while_it_runs(
    project: Path, postgres: str
) -> None:
    override(project, "nutrition", {"training.epochs": 1})
    words = [sys.executable, "-m", "meetara_build", "build", "nutrition"]
    done = subprocess.run(
        words,
        cwd=project,
        env={**os.environ, URL: postgres},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    until(lambda: waiting_files(project / "artifacts") == 0)
    context = Local(postgres, Retention())
    runs = [row for row in context.store.export() if row["kind"] == "run"]
    assert {"adapter", "evaluate", "package"} <= {
        row["stage"] for row in runs if row["domain"] == "nutrition"
    }
    assert (
        context.section("quality_metrics", "nutrition")["validation_scores"]["nutrition"][
            "validation_loss_after"
        ]
        > 0
    )
    context.close()


def test_a_context_that_is_away_holds_up_nothing_and_is_told_later(
    project: Path, postgres: str
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.001)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    words = [sys.executable, "-m", "meetara_build", "build", "nutrition"]
    done = subprocess.run(
        words,
        cwd=project,
        env={**os.environ, URL: away},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    waiting = waiting_files(project / "artifacts")
    assert waiting > 0
    log = folder(project / "artifacts") / "courier.log"
    until(lambda: log.exists() and "cannot be reached" in log.read_text())
    for process in processes(project, "meetara_build.engine.courier"):
        process.kill()
    show = [sys.executable, "-m", "meetara_build", "context", "show", "resource_status", "--json"]
    told = subprocess.run(
        show,
        cwd=project,
        env={**os.environ, URL: postgres},
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"runs": ' in told.stdout
    assert waiting_files(project / "artifacts") == 0
