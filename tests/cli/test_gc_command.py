"""gc: the store forgets what is neither current nor pinned, and nothing else."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import state
from fast_stages import build, fast_project
from projects import copy_built, edit, override

from meetara_build.cli.gc import gc
from meetara_build.engine.build_lock import at_work
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.plan import MAYBE, RESTORE, RUN, plan

Collected = Callable[..., dict[str, Any]]


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Collected:
    """``collected(project, max_size="1GB")``: what gc tells programs that it forgot there."""

    def found(
        project: Path,
        max_size: str | None = None,
        max_age: str | None = None,
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        monkeypatch.chdir(project)
        capsys.readouterr()
        gc(max_size, max_age, dry_run=dry_run, as_json=True)
        content: dict[str, Any] = json.loads(capsys.readouterr().out)
        return content

    return found


def to_do(project: Path) -> dict[str, str]:
    return {item.step.name: item.action for item in plan(load(project)).to_do()}


def described(project: Path, text: str) -> None:
    """Another description of nutrition: its package is made anew, and nothing else."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", text)


def rebuilt(project: Path) -> str:
    """Build an edit of the description, so that one result is no longer current; the description
    before."""
    path = project / "conf" / "domain" / "nutrition.yaml"
    before = path.read_text()
    described(project, "Another")
    assert build(project).worked_out == {"nutrition/package"}
    return before


# What is asked for


@pytest.mark.parametrize(
    ("max_size", "max_age", "said"),
    [
        (None, None, "gc: say how much may stay: --max-size 10GB, or --max-age 30d, or both"),
        ("large", None, "gc: 'large' is no size; write it like 10GB (units: kb, mb, gb, tb)"),
        ("10XB", None, "gc: '10XB' is no size"),
        ("-1GB", None, "gc: '-1GB' is no size"),
        ("", None, "gc: '' is no size"),
        (None, "3y", "gc: '3y' is no age; write it like 30d (units: m, h, d, w)"),
        (None, "30", "gc: '30' is no age"),
        ("1GB", "soon", "gc: 'soon' is no age"),
    ],
)
def test_without_a_bound_or_with_a_bad_one_nothing_is_forgotten(
    built: Path, collected: Collected, max_size: str | None, max_age: str | None, said: str
) -> None:
    before = state(built / "artifacts")
    with pytest.raises(ConfigError) as fault:
        collected(built, max_size, max_age)
    assert str(fault.value).startswith(said)
    assert state(built / "artifacts") == before


def test_a_missing_bound_is_said_on_the_command_line(built: Path, command: Any) -> None:
    done = command(built, "gc", "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("meetara-build: gc: say how much may stay")


@pytest.mark.parametrize(
    "bound", [{"max_size": "1.5 GB"}, {"max_size": "10tb"}, {"max_age": "30D"}, {"max_age": "1.5w"}]
)
def test_a_bound_may_be_written_as_people_do(
    built: Path, collected: Collected, bound: dict[str, str]
) -> None:
    assert collected(built, **bound, dry_run=True)["works"] == 0


# What stays


def test_what_is_current_stays_whatever_the_bound(
    project: Path, collected: Collected, command: Any
) -> None:
    for bounds in (("0", None), (None, "0m"), ("0", "0m")):
        found = collected(project, *bounds)
        assert (found["blobs"], found["size"]) == (0, 0)
        assert to_do(project) == {}
    done = command(project, "verify")
    assert (done.returncode, done.stderr) == (0, "")


def test_after_gc_all_that_is_current_still_comes_from_the_store(
    project: Path, collected: Collected
) -> None:
    collected(project, max_size="0")
    (project / "artifacts" / "nutrition" / "gguf" / "nutrition-F16.gguf").unlink()
    (project / "artifacts" / "music" / "package" / "README.md").unlink()
    found = to_do(project)
    assert found
    assert set(found.values()) == {RESTORE}


def test_what_is_current_stays_while_an_edit_waits_to_be_built(
    project: Path, collected: Collected
) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    before = path.read_text()
    override(project, "nutrition", {"lora.rank": 8})
    collected(project, max_size="0")
    path.write_text(before)
    assert to_do(project) == {}


def test_a_real_build_stays_whole(
    built_project: Path, tmp_path: Path, collected: Collected, command: Any
) -> None:
    real = copy_built(built_project, tmp_path / "real")
    collected(real, max_size="0")
    assert to_do(real) == {}
    done = command(real, "verify")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(" artifacts checked, 0 faults\n")


# What goes


def test_a_result_that_is_no_longer_current_is_forgotten_and_made_again_after_a_revert(
    project: Path, collected: Collected
) -> None:
    before = rebuilt(project)
    path = project / "conf" / "domain" / "nutrition.yaml"
    now = path.read_text()
    path.write_text(before)
    assert to_do(project) == {"nutrition/package": RESTORE}
    path.write_text(now)
    found = collected(project, max_size="0")
    assert found["works"] >= 1
    assert found["blobs"] >= 1
    assert to_do(project) == {}
    path.write_text(before)
    assert to_do(project) == {"nutrition/package": RUN, "report/report": MAYBE}


def test_what_still_fits_is_kept_for_a_revert(project: Path, collected: Collected) -> None:
    before = rebuilt(project)
    for bounds in (("1GB", None), (None, "1h")):
        assert collected(project, *bounds)["works"] == 0
    (project / "conf" / "domain" / "nutrition.yaml").write_text(before)
    assert to_do(project) == {"nutrition/package": RESTORE}


def test_age_counts_from_the_last_use(project: Path, collected: Collected) -> None:
    rebuilt(project)
    old = time.time() - 3 * 86400
    for path in (project / "artifacts" / "store" / "actions").rglob("*.json"):
        os.utime(path, (old, old))
    assert collected(project, max_age="4d")["works"] == 0
    assert collected(project, max_age="2d")["works"] == 1
    assert to_do(project) == {}


def test_a_dry_run_says_the_same_and_forgets_nothing(project: Path, collected: Collected) -> None:
    rebuilt(project)
    to_do(project)
    before = state(project / "artifacts")
    dry = collected(project, max_size="0", dry_run=True)
    assert dry["dry_run"] is True
    assert state(project / "artifacts") == before
    wet = collected(project, max_size="0")
    assert {**wet, "dry_run": True} == dry


def test_people_are_told_what_was_forgotten_and_what_stays(project: Path, command: Any) -> None:
    rebuilt(project)
    dry = command(project, "gc", "--max-age", "0m", "--dry-run").stdout
    assert dry.startswith("would forget 1 result, ")
    said = command(project, "gc", "--max-age", "0m").stdout
    assert said.startswith("forgot 1 result, ")
    assert said.count("\n") == 1
    said = command(project, "gc", "--max-size", "1kb").stdout
    assert said.startswith("forgot 0 results, 0 files of 0 kB (0 kB of disk freed); ")
    assert (
        "What stays is current or pinned, here or in another checkout that shares the store."
        in said
    )


def test_a_dry_run_of_a_project_that_was_never_built_finds_nothing(
    tmp_path: Path, collected: Collected
) -> None:
    project = fast_project(tmp_path / "project")
    assert collected(project, max_size="0")["left_works"] == 0


def test_what_a_killed_build_left_is_cleared_too(project: Path, collected: Collected) -> None:
    left = project / "artifacts" / ".work" / f"nutrition-adapter-{'ab' * 8}" / "checkpoint"
    left.mkdir(parents=True)
    assert collected(project, max_size="1GB", dry_run=True)["left_over"] == 0
    assert left.exists()
    assert collected(project, max_size="1GB")["left_over"] == 1
    assert not left.exists()


# While others work


def test_while_a_build_is_at_work_gc_is_refused_with_its_owner(
    project: Path, collected: Collected, command: Any
) -> None:
    rebuilt(project)
    with at_work(project, ["nutrition/package"]):
        done = command(project, "gc", "--max-size", "0")
        assert done.returncode == 1
        assert "another build is at work on nutrition/package (" in done.stderr
        assert f"process {os.getpid()}" in done.stderr
    assert collected(project, max_size="0")["works"] >= 1


def test_what_another_checkout_that_shares_the_store_has_is_kept(
    project: Path, tmp_path: Path, collected: Collected
) -> None:
    edit(project / "conf" / "build.yaml", "store", str(tmp_path / "store"))
    build(project)
    other = copy_built(project, tmp_path / "other")
    described(other, "Theirs")
    build(other)
    described(project, "Ours")
    build(project)
    collected(project, max_size="0")
    assert to_do(project) == to_do(other) == {}
    (other / "artifacts" / "nutrition" / "package" / "README.md").unlink()
    assert to_do(other) == {"nutrition/package": RESTORE}
