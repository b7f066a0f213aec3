"""Two builds at once: side by side where they have nothing in common, refused with the owner's name
where they have."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import models, outcomes, start, until
from projects import copy_built, edit, override

from meetara_build.engine.build_lock import ANY, at_work
from meetara_build.errors import BuildError

HOLDER = """
import sys, time
from pathlib import Path
from meetara_build.engine.build_lock import at_work
with at_work(Path(sys.argv[1]), sys.argv[2:]):
    print("at work", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(project: Path, *steps: str) -> Iterator[subprocess.Popen[str]]:
    """Another process at work on some steps."""
    words = [sys.executable, "-c", HOLDER, str(project), *steps]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "at work\n"
        try:
            yield process
        finally:
            process.kill()


def test_builds_of_different_steps_go_side_by_side(tmp_path: Path) -> None:
    with holder(tmp_path, "nutrition/adapter"), at_work(tmp_path, ["programming/adapter"]):
        assert len(list((tmp_path / ".meetara" / "builds").glob("[0-9]*"))) == 2


def test_builds_that_share_a_step_do_not_and_the_owner_is_named(tmp_path: Path) -> None:
    with holder(tmp_path, "base/mini/base", "nutrition/adapter") as owner:
        said = rf"another build is at work on base/mini/base \(\w+, process {owner.pid}\); wait for it, stop it"
        with (
            pytest.raises(BuildError, match=said),
            at_work(tmp_path, ["base/mini/base", "programming/adapter"]),
        ):
            pass
        assert len(list((tmp_path / ".meetara" / "builds").glob("[0-9]*"))) == 1, (
            "the refused one leaves nothing"
        )


@pytest.mark.parametrize(("theirs", "ours"), [([ANY], ["a"]), (["a"], [ANY]), ([ANY], [ANY])])
def test_who_needs_everything_is_alone(tmp_path: Path, theirs: list[str], ours: list[str]) -> None:
    with (
        holder(tmp_path, *theirs),
        pytest.raises(BuildError, match="another build is at work on"),
        at_work(tmp_path, ours),
    ):
        pass


def test_a_build_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, "nutrition/adapter") as owner:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        with at_work(tmp_path, ["nutrition/adapter"]):
            pass


def test_a_build_shows_nothing_before_it_is_its_turn(tmp_path: Path) -> None:
    """A file that is there and not yet locked would be taken for a killed build's, and removed."""
    folder = tmp_path / ".meetara" / "builds"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, "-c", HOLDER, str(tmp_path), "a"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
            until(
                lambda: any(
                    str(folder) in file.path for file in psutil.Process(other.pid).open_files()
                )
            )
            assert list(folder.glob("[0-9]*")) == []
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert other.stdout
            assert other.stdout.readline() == "at work\n"
            assert [path.name for path in folder.glob("[0-9]*")] == [str(other.pid)]
            other.kill()


def anew(project: Path, domain: str) -> None:
    """Have a domain's package be worked out again."""
    edit(project / "conf" / "domain" / f"{domain}.yaml", "evaluation.beat_base_by", 0.001)


def test_two_builds_of_different_domains_both_end_well(
    snakemade: Path, tmp_path: Path, warm_folder: Path
) -> None:
    project = copy_built(snakemade, tmp_path / "project")
    for domain in ("nutrition", "programming"):
        anew(project, domain)
    builds = [
        start(project, "build", domain, TMPDIR=str(warm_folder))
        for domain in ("nutrition", "programming")
    ]
    for build in builds:
        said, complained = build.communicate(timeout=200)
        assert build.returncode == 0, said + complained
    assert sorted(outcomes(project)[-2:]) == [
        ("package", "nutrition", "built"),
        ("package", "programming", "built"),
    ]


def test_a_build_beside_one_of_the_same_domain_is_refused(
    snakemade: Path, tmp_path: Path, warm_folder: Path, command: Any
) -> None:
    project = copy_built(snakemade, tmp_path / "project")
    shutil.rmtree(project / "artifacts" / "store")
    override(project, "nutrition", {"training.max_steps": 20})
    first = start(project, "build", "nutrition", TMPDIR=str(warm_folder))
    until(
        lambda: (
            list((project / ".meetara" / "builds").glob("[0-9]*"))
            and (project / ".snakemake" / "locks").exists()
        )
    )
    until(lambda: any((project / ".snakemake" / "locks").iterdir()))
    done = command(project, "build", "nutrition")
    assert done.returncode == 1
    assert f"process {first.pid}); wait for it, stop it, or name other domains" in done.stderr
    said, complained = first.communicate(timeout=200)
    assert first.returncode == 0, said + complained
    assert models(project)
