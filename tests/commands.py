"""Commands run as a person runs them, what they leave, and the faults that machines have."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from meetara_build.graph.stages import NAMES as STAGES

T = TypeVar("T")

Jobs = set[tuple[str, str]]
"""Rules and what they are for: ``("adapter", "nutrition")``."""


def snakemake(
    project: Path, *words: str, profile: str = "local", **environment: str
) -> subprocess.CompletedProcess[str]:
    """``snakemake WORDS --profile conf/profile/local`` in a project's folder."""
    return run_there(
        project,
        sys.executable,
        "-m",
        "snakemake",
        *words,
        "--profile",
        f"conf/profile/{profile}",
        **environment,
    )


def run_there(
    folder: Path, *words: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command in a folder, its output as text."""
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(project: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """``meetara-build WORDS`` as the leader of a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "meetara_build", *words],
        cwd=project,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=_hear_ctrl_c,
    )


def _hear_ctrl_c() -> None:
    """A shell that runs the tests in the background has them, and all they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def jobs(dry_run: subprocess.CompletedProcess[str]) -> Jobs:
    """What a ``snakemake -n`` would run, rules that only collect left out."""
    assert dry_run.returncode == 0, dry_run.stdout + dry_run.stderr
    found = set()
    for name, details in re.findall(
        r"^rule (\S+):\n((?: .*\n)+)", dry_run.stdout + dry_run.stderr, re.MULTILINE
    ):
        wildcards = dict(re.findall(r"(domain|base)=(\w+)", details))
        stage = "gguf" if name == "base_gguf" else name.split("_")[0]
        if stage in STAGES:
            found.add(
                (
                    stage,
                    wildcards.get("domain")
                    or (f"base/{wildcards['base']}" if wildcards else "report"),
                )
            )
    return found


def until(condition: Callable[[], T], seconds: float = 60) -> T:
    """Wait for something to become true, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)
    return found


def processes(folder: Path, *marks: str) -> list[psutil.Process]:
    """Processes that work in a folder (or below), or whose command line names it; with all the
    marks in it too."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        here = str(folder) in line or (process.info["cwd"] or "").startswith(str(folder))
        if (
            here
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and all(mark in line for mark in marks)
        ):
            found.append(process)
    return found


def models(project: Path) -> dict[str, str]:
    """sha256 of every artifact whose bytes may never differ between builds of the same."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((project / "artifacts").rglob("*"))
        if path.suffix in (".gguf", ".safetensors", ".jsonl")
        and not {"store", "merged", ".work"} & set(path.parts)
        if path.name != "runs.jsonl"
    }


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def damage(path: Path) -> None:
    """Change one byte in the middle of a file, and nothing that a look at its size would show."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # its other names keep their bytes
    path.write_bytes(content)


def outcomes(project: Path) -> list[tuple[str, str, str]]:
    """Stage, target and outcome of every recorded run."""
    lines = (project / "artifacts" / "runs.jsonl").read_text().splitlines()
    return [(run["stage"], run["target"], run["outcome"]) for run in map(json.loads, lines)]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """The folder, its content kept, on a disk of its own of this size."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=False
    )
    if made.returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(disk: Path, but: int) -> Iterator[None]:
    """A disk with this many bytes left."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free - but
    with filler.open("wb") as file:
        file.write(b"\0" * free)
    try:
        yield
    finally:
        filler.unlink()
