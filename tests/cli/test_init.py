"""init: a new project holds all that a build needs."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from meetara_build.cli.init import init
from meetara_build.graph import load


def test_a_new_project_holds_all_that_a_build_needs(tmp_path: Path, command: Any) -> None:
    done = command(tmp_path, "init", "models")
    assert done.returncode == 0
    assert "cd models" in done.stdout
    folder = tmp_path / "models"
    assert {path.name for path in folder.iterdir()} == {
        ".gitignore",
        "Snakefile",
        "conf",
        "plugins",
        "rules",
    }
    assert len(load(folder).domains) == 62
    assert "artifacts/" in (folder / ".gitignore").read_text()
    assert not list(folder.rglob("__pycache__"))


def test_an_empty_folder_may_become_a_project(tmp_path: Path, command: Any) -> None:
    (tmp_path / "models").mkdir()
    assert command(tmp_path / "models", "init", ".").returncode == 0
    assert (tmp_path / "models" / "Snakefile").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, command: Any) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("models", "file"):
        done = command(tmp_path, "init", name)
        assert done.returncode == 1
        assert f"{name}: is there already and not empty; name a new folder" in done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["precious"]


def test_a_project_that_cannot_be_written_is_one_message(tmp_path: Path, command: Any) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path, "init", "file/models")
    assert done.returncode == 1
    assert done.stderr.startswith("meetara-build: ")
    assert "Traceback" not in done.stderr


def test_the_way_into_a_new_project_is_printed_as_a_shell_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "my models/it's {x}")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  cd "))
    assert shlex.split(line) == ["cd", f"{tmp_path}/my models/it's {{x}}"]
