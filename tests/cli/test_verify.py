"""verify: damage is found by file, and repaired."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import damage, models, outcomes
from fast_stages import build as fast_build
from fast_stages import fast_project
from projects import choose, copy_built, edit, override

from meetara_build.cli.verify import _find_profile, verify
from meetara_build.errors import ConfigError
from meetara_build.graph import load


def test_a_finished_build_is_verified(built_project: Path, command: Any) -> None:
    done = command(built_project, "verify")
    assert done.returncode == 0
    assert done.stdout.endswith(" artifacts checked, 0 faults\n")


def test_nothing_built_is_nothing_to_verify(project: Path, command: Any) -> None:
    shutil.rmtree(project / "artifacts")
    done = command(project, "verify")
    assert done.returncode == 1
    assert "nothing built yet; run `meetara-build build`" in done.stderr


@pytest.mark.parametrize("words", [["nutrition"], []])
def test_a_changed_byte_is_found_by_file(project: Path, command: Any, words: list[str]) -> None:
    model = project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf"
    damage(model)
    done = command(project, "verify", *words)
    assert done.returncode == 1
    assert f"{model}: its content is not what was built" in done.stdout
    assert done.stdout.endswith("1 faults; mend it with `meetara-build verify --repair`\n")
    content = json.loads(command(project, "verify", *words, "--json").stdout)
    assert list(content["faults"]) == ["nutrition/gguf"]
    assert command(project, "verify", "programming").returncode == 0


def test_repair_brings_back_what_was_built(snakemade: Path, tmp_path: Path, command: Any) -> None:
    """A model of a domain and a file of the base, the store's own copy of the model damaged with
    it."""
    project = copy_built(snakemade, tmp_path / "project")
    before = models(project)
    model = project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf"
    for path in (project / "artifacts" / "store" / "blobs").rglob("*"):
        if path.is_file() and path.stat().st_ino == model.stat().st_ino:
            damage(path)
    damage(model)
    (project / "artifacts" / "base" / "mini" / "model" / "config.json").unlink()
    done = command(project, "verify", "--repair")
    assert done.returncode == 0, done.stderr
    assert models(project) == before
    assert command(project, "verify").returncode == 0
    assert ("gguf", "nutrition", "built") in outcomes(project)
    assert ("base", "base/mini", "restored") in outcomes(project)


def test_a_base_is_verified_by_its_name(project: Path, command: Any) -> None:
    assert command(project, "verify", "base/mini").returncode == 0
    damage(project / "artifacts" / "base" / "mini" / "model" / "model.safetensors")
    done = command(project, "verify", "base/mini")
    assert done.returncode == 1
    assert "model.safetensors: its content is not what was built" in done.stdout
    assert command(project, "verify", "base/tiny").returncode == 1


def test_the_message_about_a_damaged_base_names_a_command_that_works(
    project: Path, command: Any
) -> None:
    damage(project / "artifacts" / "base" / "mini" / "model" / "model.safetensors")
    shutil.rmtree(project / "artifacts" / "store")
    said = command(project, "stage", "adapter", "nutrition").stderr
    assert "repair it with `meetara-build verify --repair base/mini`" in said
    assert "model.safetensors" in command(project, "verify", "base/mini").stdout


def test_an_action_that_is_another_work_s_is_named_and_dropped(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    actions = sorted((project / "artifacts" / "store" / "actions").rglob("*.json"))
    actions[0].unlink()
    shutil.copy(actions[1], actions[0])
    with pytest.raises(typer.Exit):
        verify(as_json=True)
    assert json.loads(capsys.readouterr().out)["faults"] == {
        "store": [f"{actions[0]}: its content is not what was stored"]
    }
    verify(repair=True, as_json=True)
    assert not actions[0].exists()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a profile for a larger machine, with which all was built."""
    project = fast_project(tmp_path / "project")
    shutil.copytree(
        project / "conf" / "profile" / "local", project / "conf" / "profile" / "cluster"
    )
    (profile,) = (project / "conf" / "profile" / "cluster").glob("config*.yaml")
    profile.write_text(profile.read_text() + "config: [hardware=big]\n")
    choose(project, base="mini", hardware="big")
    fast_build(project)
    choose(project, base="mini", hardware="cpu")
    monkeypatch.chdir(project)
    return project


def test_what_was_built_for_another_machine_is_repaired_with_its_profile(elsewhere: Path) -> None:
    graph = load(elsewhere)
    assert _find_profile(graph) == "cluster"
    override(elsewhere, "nutrition", {"training.epochs": 3})
    assert _find_profile(load(elsewhere)) == "cluster", "an edit since then is no other machine"
    shutil.rmtree(elsewhere / "artifacts")
    assert _find_profile(graph) == "local"


def test_where_several_profiles_are_for_that_machine_one_has_to_be_named(elsewhere: Path) -> None:
    shutil.copytree(
        elsewhere / "conf" / "profile" / "cluster", elsewhere / "conf" / "profile" / "cloud"
    )
    card = elsewhere / "artifacts" / "nutrition" / "package" / "README.md"
    damage(card)
    said = "was built for big; say where to build it again: --profile cloud or --profile cluster"
    with pytest.raises(ConfigError, match=said):
        verify(["nutrition"], repair=True, as_json=True)
    assert card.with_name("manifest.json").exists(), "nothing is forgotten before that"


@pytest.fixture
def package(built_project: Path, tmp_path: Path) -> Path:
    """A package's folder, handed to someone who has no project."""
    folder = tmp_path / "handed" / "nutrition"
    shutil.copytree(built_project / "artifacts" / "nutrition" / "package", folder)
    for path in (built_project / "artifacts" / "nutrition" / "gguf").glob("*.gguf"):
        shutil.copyfile(path, folder / path.name)
    sums = (folder / "SHA256SUMS").read_text().replace("../gguf/", "")
    (folder / "SHA256SUMS").chmod(0o644)
    (folder / "SHA256SUMS").write_text(sums)
    return folder


def test_a_folder_is_verified_against_its_sums_anywhere(package: Path, command: Any) -> None:
    assert (
        command(package.parent, "verify", "nutrition").stdout == "1 artifacts checked, 0 faults\n"
    )
    damage(package / "nutrition-Q8_0.gguf")
    (package / "Modelfile").unlink()
    done = command(package.parent, "verify", "nutrition")
    assert done.returncode == 1
    assert "nutrition-Q8_0.gguf: its content is not what was built" in done.stdout
    assert "Modelfile: missing" in done.stdout


def test_sums_that_are_none_are_refused_by_line(package: Path, command: Any) -> None:
    (package / "SHA256SUMS").write_text("abc  Modelfile\n")
    done = command(package.parent, "verify", "nutrition")
    assert done.returncode == 1
    assert "SHA256SUMS:1: not a line of sha256sum" in done.stderr
    done = command(package.parent, "verify", "./elsewhere")
    assert (
        "SHA256SUMS: cannot be read; name a folder that `package` made of a model that is not held back"
        in done.stderr
    )


def test_a_model_that_is_held_back_is_whole_and_is_repaired_like_any_other(
    project: Path, command: Any
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.9)
    assert command(project, "build", "nutrition").returncode == 1
    assert command(project, "verify", "nutrition").returncode == 0
    card = project / "artifacts" / "nutrition" / "package" / "README.md"
    before = card.read_bytes()
    damage(card)
    assert command(project, "verify", "nutrition").returncode == 1
    done = command(project, "verify", "nutrition", "--repair")
    assert done.returncode == 0, done.stderr
    assert card.read_bytes() == before
    assert command(project, "verify", "nutrition").returncode == 0
