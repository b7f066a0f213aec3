"""The wheel alone makes a working project, wherever it is installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import run_there
from projects import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_a_project_is_made_of(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in ("conf/build.yaml", "conf/domain/nutrition.jsonl", "conf/profile/lambda/config.yaml", "Snakefile"):
        assert f"meetara_build/project/{part}" in names
    for path in [*(REPOSITORY / "rules").glob("*.smk"), *(REPOSITORY / "conf").rglob("*.yaml")]:
        assert f"meetara_build/project/{path.relative_to(REPOSITORY)}" in names
    assert any(name.startswith("meetara_build/project/plugins/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/")) or "__pycache__" in name]


def test_a_project_of_the_installed_wheel_plans_and_works(wheel: Path, tmp_path: Path) -> None:
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*words, str(wheel)], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    environment = {"PYTHONPATH": str(site), "TMPDIR": str(tmp_path)}

    def meetara_build(folder: Path, *words: str) -> str:
        done = run_there(folder, str(site / "bin" / "meetara-build"), *words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run_there(home, sys.executable, "-c", "import meetara_build; print(meetara_build.__file__)", **environment)
    assert where.stdout.startswith(str(site))
    assert "my-models is ready" in meetara_build(home, "init", "my-models")
    project = home / "my-models"
    assert "Plan: " in meetara_build(project, "plan", "nutrition")
    assert meetara_build(project, "stage", "corpus", "base/tiny", "--cold") == "base/tiny/corpus: built\n"
    assert (project / "artifacts" / "base" / "tiny" / "corpus" / "manifest.json").exists()
    dry = run_there(project, sys.executable, "-m", "snakemake", "nutrition", "-n", "-p", **environment)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "stage --parent $PPID package nutrition" in dry.stdout
