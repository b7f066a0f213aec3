"""Bundles on the command line: built by Snakemake, shown, proved and repaired."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import damage
from projects import copy_built, write_yaml

TWO = "bundle/two"


@pytest.fixture(scope="module")
def bundled(built_project: Path, tmp_path_factory: pytest.TempPathFactory, command: Any) -> Path:
    """A project of three domains, with a bundle of two that `build` made."""
    project = copy_built(built_project, tmp_path_factory.mktemp("bundled") / "project")
    said = {"description": "Two", "domains": ["nutrition", "storytelling"], "quants": ["Q4_K_M"]}
    write_yaml(project / "conf" / f"{TWO}.yaml", said)
    done = command(project, "build", TWO)
    assert done.returncode == 0, done.stderr
    assert f"{TWO}: artifacts/{TWO}" in done.stdout
    assert "2 domains up to date" in done.stdout
    return project


@pytest.fixture
def project(bundled: Path, tmp_path: Path) -> Path:
    return copy_built(bundled, tmp_path / "project")


def test_a_second_build_has_nothing_to_do(bundled: Path, command: Any) -> None:
    assert command(bundled, "plan", TWO, "--detailed-exitcode").returncode == 0
    done = json.loads(command(bundled, "build", TWO, "--json").stdout)
    assert done["runs"] == []
    assert done["bundles"] == {TWO: f"artifacts/{TWO}"}


def test_verify_proves_it_and_says_that_nothing_is_there_twice(bundled: Path, command: Any) -> None:
    done = command(bundled, "verify", TWO)
    assert done.returncode == 0
    whole, links = (
        done.stdout.splitlines()[0].partition(": ")[2].split(" are links")[0].split(" of ")
    )
    assert whole == links
    assert done.stdout.splitlines()[-1].endswith("0 faults")


def test_a_bundle_that_was_taken_along_is_proved_by_its_folder(
    bundled: Path, tmp_path: Path, command: Any
) -> None:
    made = tmp_path / "elsewhere"
    shutil.copytree(bundled / "artifacts" / TWO, made)
    assert command(tmp_path, "verify", str(made)).returncode == 0


def test_a_bundle_whose_base_is_another_is_found_and_said_so(
    bundled: Path, tmp_path: Path, command: Any
) -> None:
    made = tmp_path / "elsewhere"
    shutil.copytree(bundled / "artifacts" / TWO, made)
    base = made / "base" / "mini-Q4_K_M.gguf"
    base.unlink()
    shutil.copy(bundled / "artifacts" / "base" / "mini" / "gguf" / "mini-F16.gguf", base)
    done = command(tmp_path, "verify", str(made))
    assert done.returncode == 1
    assert f"{base}: its content is not what was built, and the adapters of this" in done.stdout


def test_a_damaged_bundle_is_repaired(project: Path, command: Any) -> None:
    index = project / "artifacts" / TWO / "index.json"
    before = index.read_bytes()
    damage(index)
    assert command(project, "verify", TWO).returncode == 1
    assert command(project, "verify", TWO, "--repair").returncode == 0
    assert index.read_bytes() == before
    assert command(project, "verify", TWO).returncode == 0


def test_a_file_that_base_and_bundle_share_is_repaired_in_both(project: Path, command: Any) -> None:
    """Whoever writes into the one writes into the other, and into the store's."""
    artifacts = project / "artifacts"
    names = [
        artifacts / TWO / "base" / "mini-Q4_K_M.gguf",
        artifacts / "base" / "mini" / "quantized" / "mini-Q4_K_M.gguf",
    ]
    before, inode = names[0].read_bytes(), names[0].stat().st_ino
    shared = [path for path in artifacts.rglob("*") if path.stat().st_ino == inode]
    changed = shared[0].with_name("changed")
    changed.write_bytes(bytes(1) + before[1:])
    for path in shared:
        path.unlink()
        path.hardlink_to(changed)
    changed.unlink()
    done = command(project, "verify", TWO)
    assert done.returncode == 1
    assert all(f"{name}: its content is not what was built" in done.stdout for name in names)
    assert command(project, "verify", TWO, "--repair").returncode == 0
    assert [name.read_bytes() for name in names] == [before, before]


def test_status_shows_bundles_that_are_built_or_named(bundled: Path, command: Any) -> None:
    states = json.loads(command(bundled, "status", "--json").stdout)
    assert states[TWO]["state"] == "fresh"
    said = {"description": "One", "domains": ["nutrition"], "quants": ["Q4_K_M"]}
    write_yaml(bundled / "conf" / "bundle" / "one.yaml", said)
    assert "bundle/one" not in json.loads(command(bundled, "status", "--json").stdout)
    named = json.loads(command(bundled, "status", "bundle/one", "--json").stdout)
    assert named == {"bundle/one": {"state": "not built", "note": ""}}


def test_explain_says_what_a_bundle_was_made_from(bundled: Path, command: Any) -> None:
    (found,) = json.loads(command(bundled, "explain", TWO, "--json").stdout)
    assert found["state"] == "fresh"
    assert {"nutrition/gguf", "nutrition/package", "base/mini/quantize"} <= set(found["inputs"])
    keys = {line["key"]: line["file"] for line in found["keys"]}
    assert keys["quants"] == f"conf/{TWO}.yaml"
    file = command(bundled, "explain", f"{TWO}/base/mini-Q4_K_M.gguf", "--json")
    assert json.loads(file.stdout)[0]["step"] == "bundle/two/bundle"


def test_a_base_is_explained_without_what_only_a_bundle_would_need(
    built_project: Path, tmp_path: Path, command: Any
) -> None:
    project = copy_built(built_project, tmp_path / "plain")
    said = {"description": "One", "domains": ["nutrition"], "quants": ["Q4_K_M"]}
    write_yaml(project / "conf" / "bundle" / "one.yaml", said)
    found = json.loads(command(project, "explain", "base/mini", "--json").stdout)
    assert "base/mini/quantize" not in {one["step"] for one in found}


@pytest.mark.parametrize("words", [["plan"], ["build"], ["status"], ["verify"], ["explain"]])
def test_an_unknown_bundle_is_refused_with_the_nearest(
    bundled: Path, command: Any, words: list[str]
) -> None:
    done = command(bundled, *words, "bundle/tow")
    assert done.returncode == 1
    assert "unknown bundle 'bundle/tow'; did you mean 'bundle/two'?" in done.stderr
