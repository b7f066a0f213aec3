"""The Snakemake profiles: each is for one machine of conf/hardware/, and each project uses its
own."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import snakemake
from projects import REPOSITORY, copy_built, edit

from meetara_build.engine.profiles import profile_folder, profile_hardware
from meetara_build.errors import ConfigError

PROFILES = {
    path.parent.name: path
    for path in sorted((REPOSITORY / "conf" / "profile").glob("*/config.yaml"))
}
ONE_MACHINE = ["colab", "lambda", "local", "runpod"]


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def hardware(profile: dict[str, Any]) -> str:
    entries = dict(entry.split("=") for entry in profile.get("config", []))
    return str(entries.get("hardware", "cpu"))


def test_there_is_a_profile_for_each_place_the_readme_names() -> None:
    assert sorted(PROFILES) == ["colab", "kubernetes", "lambda", "local", "runpod", "slurm"]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_killed_job_is_started_again_and_a_failed_one_stops_no_other(name: str) -> None:
    profile = read(PROFILES[name])
    assert profile["rerun-incomplete"]
    assert profile["keep-going"]
    assert (REPOSITORY / "conf" / "hardware" / f"{hardware(profile)}.yaml").exists()


@pytest.mark.parametrize("name", ONE_MACHINE)
def test_memory_and_gpus_are_those_of_the_machine(name: str) -> None:
    profile = read(PROFILES[name])
    machine = read(REPOSITORY / "conf" / "hardware" / f"{hardware(profile)}.yaml")
    offered = dict(entry.split("=") for entry in profile["resources"])
    assert int(offered["mem_mb"]) == machine["memory_gb"] * 1000
    assert int(offered["gpu"]) == machine["gpus"]


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"local"}))
def test_machines_that_may_vanish_retry(name: str) -> None:
    assert read(PROFILES[name])["retries"] >= 2


@pytest.mark.parametrize("name", ["kubernetes", "slurm"])
def test_jobs_on_other_machines_start_no_warm_process_there(name: str) -> None:
    assert "warm=false" in read(PROFILES[name])["config"]


def test_lambda_is_one_gpu_with_retries_and_resume(project: Path) -> None:
    text = (profile_folder(project, "lambda") / "config.yaml").read_text()
    assert profile_hardware(project, "lambda") == "a10"
    for line in (r"^resources: \[.*\bgpu=1\b.*\]", "^retries: [1-9]", "^rerun-incomplete: true"):
        assert re.search(line, text, re.MULTILINE)


def test_a_profile_is_found_by_its_name(project: Path) -> None:
    for name in ("local", "lambda", "runpod", "colab", "slurm", "kubernetes"):
        assert profile_folder(project, name).is_dir()
    with pytest.raises(ConfigError, match="unknown profile 'lokal'; did you mean 'local'"):
        profile_folder(project, "lokal")


def test_a_broken_profile_is_named_with_its_line(project: Path) -> None:
    path = project / "conf" / "profile" / "local" / "config.yaml"
    path.write_text("executor: local\ncores: [all\n")
    with pytest.raises(ConfigError, match=rf"{path}:\d+: not valid YAML"):
        profile_hardware(project, "local")


# Of each project its own


@pytest.fixture
def two(built_project: Path, tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """Two projects whose profiles of the same name differ, and what an earlier version left in the
    user's folder: a link to the first one's."""
    first, second = (copy_built(built_project, tmp_path / name) for name in ("first", "second"))
    for project, cores in ((first, 1), (second, 2)):
        path = project / "conf" / "profile" / "local" / "config.yaml"
        path.write_text(path.read_text().replace("cores: all", f"cores: {cores}"))
        path.write_text(path.read_text() + f"config: [hardware={'cpu' if cores == 1 else 'a10'}]\n")
        edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    links = tmp_path / "config" / "snakemake"
    links.mkdir(parents=True)
    (links / "local").symlink_to(first / "conf" / "profile" / "local")
    return first, second, {"XDG_CONFIG_HOME": str(links.parent)}


def test_two_projects_on_one_machine_use_their_own_profiles(
    two: tuple[Path, Path, dict[str, str]],
) -> None:
    for project, machine in zip(two, ("cpu", "a10"), strict=False):
        done = snakemake(project, "nutrition", "-n", "-p", **two[2])
        assert done.returncode == 0, done.stderr
        assert set(re.findall(r"stage .*--hardware (\w+)", done.stdout)) == {machine}


def test_a_build_gives_snakemake_the_profile_of_its_own_project(
    two: tuple[Path, Path, dict[str, str]], command: Any
) -> None:
    first, second, environment = two
    edit(second / "conf" / "profile" / "local" / "config.yaml", "config", ["hardware=cpu"])
    for project, cores in ((first, 1), (second, 2)):
        done = command(project, "build", "nutrition", **environment)
        assert done.returncode == 0, done.stderr
        (log,) = (project / "artifacts" / "logs").glob("snakemake-2*.log")
        assert f"Provided cores: {cores}" in log.read_text()


def test_a_profile_that_lies_elsewhere_is_given_by_its_path(
    built_project: Path, project: Path, tmp_path: Path, command: Any
) -> None:
    shutil.copytree(built_project / "conf" / "profile" / "lambda", tmp_path / "mine")
    said = command(project, "plan", "nutrition", "--profile", str(tmp_path / "mine")).stdout
    assert said == command(project, "plan", "nutrition", "--profile", "lambda").stdout.replace(
        "(lambda, ", f"({tmp_path / 'mine'}, "
    )
    done = command(project / "conf", "plan", "--profile", "./profile/local", "--out", "kept.json")
    assert done.returncode == 0, done.stderr
    kept = project / "conf" / "kept.json"
    assert json.loads(kept.read_text())["profile"] == str(project / "conf" / "profile" / "local")
    done = command(project, "apply", str(kept))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["conf/profile/lokal", "conf/profile", "./Snakefile", "./local"])
def test_a_path_that_holds_no_profile_is_named(
    built_project: Path, command: Any, path: str
) -> None:
    done = command(built_project, "build", "--profile", path)
    assert done.returncode == 1
    where = (built_project / path).resolve()
    said = f"{where}: no profile; name a folder with a config.yaml, or one of colab, kubernetes, "
    assert said in done.stderr
