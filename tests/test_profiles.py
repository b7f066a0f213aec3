"""The Snakemake profiles: each is for one machine of conf/hardware/, and offers what that machine has."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import REPOSITORY

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
