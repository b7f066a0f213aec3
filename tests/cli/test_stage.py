"""`meetara-build stage`: one stage run, as every rule calls it."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run_there
from projects import override

from meetara_build.graph import load


def test_a_stage_run_says_what_it_did(project: Path, command: Any) -> None:
    shutil.rmtree(project / "artifacts" / "nutrition" / "package")
    done = command(project, "stage", "package", "nutrition")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nutrition/package: restored\n", "")


def test_a_stage_runs_from_any_folder_of_the_project(project: Path, command: Any) -> None:
    assert command(project / "conf" / "domain", "stage", "package", "nutrition").returncode == 0


@pytest.mark.parametrize("target", ["nutritoin", "base/mini", "base/tiny"])
def test_an_unknown_target_is_refused(built_project: Path, command: Any, target: str) -> None:
    done = command(built_project, "stage", "package", target)
    assert done.returncode == 1
    assert f"'{target}' has no stage 'package' in this build" in done.stderr


def test_an_unknown_stage_is_answered_with_the_known_ones(
    built_project: Path, command: Any
) -> None:
    done = command(built_project, "stage", "adaptor", "nutrition")
    assert done.returncode == 64
    assert "adaptor" in done.stderr
    assert "corpus" in done.stderr
    assert "package" in done.stderr


def test_a_rule_s_fingerprint_has_to_be_the_one_that_is_now(project: Path, command: Any) -> None:
    asked = load(project).step("package", "nutrition").fingerprint
    assert command(project, "stage", "package", "nutrition", "--fingerprint", asked).returncode == 0
    override(project, "nutrition", {"domain.quants": ["Q8_0"]})
    done = command(project, "stage", "package", "nutrition", "--fingerprint", asked)
    assert done.returncode == 1
    assert (
        "nutrition/package: the configuration or the code changed during the build; build again"
        in done.stderr
    )


def test_debug_shows_the_traceback(project: Path, command: Any) -> None:
    (project / "artifacts" / "nutrition" / "gguf" / "manifest.json").unlink()
    assert "Traceback" not in command(project, "stage", "package", "nutrition").stderr
    assert "Traceback" in command(project, "stage", "package", "nutrition", "--debug").stderr


def test_a_run_ends_with_the_process_it_names(project: Path) -> None:
    done = run_there(
        project,
        sys.executable,
        "-m",
        "meetara_build",
        "stage",
        "package",
        "nutrition",
        "--parent",
        "1",
    )
    assert done.returncode == 1
    words = [
        sys.executable,
        "-m",
        "meetara_build",
        "stage",
        "package",
        "nutrition",
        "--parent",
        str(os.getpid()),
    ]
    assert run_there(project, *words).stdout == "nutrition/package: restored\n"
