"""Small projects to try things on, as ``meetara-build init`` makes them, with few domains and a
base that trains in seconds.

Copy a built project (`copy_built`) before editing it; `shared_build` builds one for all tests of a
session.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from meetara_build.cli.init import init
from meetara_build.engine.stage_run import run
from meetara_build.graph import Graph, load
from meetara_build.graph.domain_similarity import similar_domains
from meetara_build.project import CACHE

REPOSITORY = Path(__file__).parents[1]
GLOBAL = "# @package _global_"
DOMAINS = ("nutrition", "programming", "storytelling")


def mini_base(domains: Sequence[str] = DOMAINS) -> dict[str, Any]:
    """The own keys of ``conf/base/mini.yaml``: a base that is pretrained in a few seconds on these
    domains' records."""
    return {
        "description": "A very small Llama for tests",
        "licence": "apache-2.0",
        "chat_template": "chatml",
        "parameters": 900_000,
        "tokenizer": {"vocab_size": 1024},
        "model": {
            "hidden_size": 256,
            "intermediate_size": 256,
            "layers": 1,
            "heads": 4,
            "kv_heads": 2,
            "positions": 1024,
        },
        "pretraining": {
            "share": 0.5,
            "epochs": 1,
            "batch_tokens": 1024,
            "learning_rate": 2e-3,
            "warmup_share": 0.05,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "threads": 1,
            "domains": list(domains),
        },
    }


MINI_SETS = {
    "training": {"epochs": 2, "batch_tokens": 512, "learning_rate": 2e-3},
    "data": {"max_tokens": 900},
    "answers": {
        "prompts": 2,
        "tokens": 12,
        # It babbles: no check that asks for sense may hold it back.
        "bounds": {"strict": {"referral": 1.0, "doses": 1.0, "amounts": 1.0, "statutes": 1.0}},
    },
}
"""What ``mini`` sets of build.yaml's keys."""


def small_project(folder: Path, domains: Sequence[str] = DOMAINS) -> Path:
    """A project in ``folder`` with these of the shipped domains and no others, all on the base
    ``mini``; without bundles."""
    init(folder)
    shutil.rmtree(folder / "conf" / "bundle")
    for path in (folder / "conf" / "domain").iterdir():
        if path.stem not in domains:
            path.unlink()
    write_yaml(folder / "conf" / "base" / "mini.yaml", {"base": mini_base(domains), **MINI_SETS})
    choose(folder, base="mini")
    edit(folder / "conf" / "hardware" / "cpu.yaml", "precision", "float32")  # as on any processor
    return folder


def choose(project: Path, base: str = "mini", hardware: str = "cpu") -> None:
    """Choose base and machine in build.yaml."""
    path = project / "conf" / "build.yaml"
    chosen = ["_self_", {"base": base}, {"hardware": hardware}, {"domain": "???"}]
    write_yaml(path, {**read_yaml(path), "defaults": chosen})


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's content."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as YAML, its keys in the order given; of a group's file with its own keys
    below the group's name, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"{GLOBAL}\n" if is_global(path, content) else ""
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)
    path.write_text(header + text, encoding="utf-8")


def is_global(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether a file of a group has its own keys below the group's name, and build.yaml's beside
    it."""
    return path.parent.name in ("base", "hardware", "domain") and path.parent.name in content


def edit(path: Path, key: str, value: Any) -> None:
    """Set one dotted key of a YAML file: ``edit(conf / "build.yaml", "training.epochs", 5)``; of a
    group's file an own key."""
    content = read_yaml(path)
    *above, last = key.split(".")
    place = content[path.parent.name] if is_global(path, content) else content
    for part in above:
        place = place.setdefault(part, {})
    place[last] = value
    write_yaml(path, content)


def override(project: Path, name: str, values: Mapping[str, Any]) -> None:
    """Have a domain, or a ``base/NAME`` or ``hardware/NAME``, set these dotted keys of build.yaml;
    a domain its base, too."""
    group, _, file = name.rpartition("/")
    group = group or "domain"
    path = project / "conf" / group / f"{file}.yaml"
    content = read_yaml(path)
    if not is_global(path, content):
        content = {group: content}
    for key, value in values.items():
        if key in ("base", "hardware"):
            chosen = [one for one in content.pop("defaults", []) if f"override /{key}" not in one]
            content = {"defaults": [*chosen, {f"override /{key}": value}], **content}
            continue
        *above, last = key.split(".")
        place = content
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    write_yaml(path, content)


def build_here(project: Path, domains: Sequence[str] = ()) -> Graph:
    """Build in this process, stage run after stage run: no Snakemake, no warm process, nothing left
    behind."""
    graph = load(project)
    for step in graph.above(graph.ends(domains)):
        run(graph, step, cold=True, debug=True)
    return graph


def shared_build(factory: pytest.TempPathFactory) -> Path:
    """A built small project, made once a test session, also by several pytest-xdist workers. Read
    it, or copy it."""
    common = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        common = common.parent
    project = common / "built" / "project"
    project.parent.mkdir(exist_ok=True)
    done = project.parent / "done"
    with (project.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(project, ignore_errors=True)
            graph = build_here(small_project(project))
            similar_domains(
                graph, graph.domains[0]
            )  # kept with the build, and so worked out once for all tests
            done.touch()
    return project


def copy_built(built: Path, folder: Path) -> Path:
    """A built project of one's own to edit; model files are linked, as the store links them, and
    never written into.

    Of what is kept for the next command, the digests of the tool's own code come along, and what
    Hydra composed: to work them out takes a second each time.
    """
    shutil.copytree(built, folder, copy_function=_link_models, ignore=_ignored)
    return folder


def _ignored(folder: str, names: list[str]) -> list[str]:
    kept_for_next = Path(folder).name == CACHE
    kept = ("code.json", "composed.json")
    return [name for name in names if name == ".locks" or (kept_for_next and name not in kept)]


def _link_models(source: str, target: str) -> None:
    if source.endswith((".gguf", ".safetensors")) or f"{os.sep}blobs{os.sep}" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def date_all(project: Path, seconds: float | None = None) -> None:
    """Give every file this time, or now; one that other tests' projects are linked to becomes a
    copy first."""
    for path in project.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_file() and path.stat().st_nlink > 1:
            copied = shutil.copy2(path, path.with_name(f"{path.name}.copied"))
            os.replace(copied, path)
        os.utime(path, None if seconds is None else (seconds, seconds))


def meetara(
    project: Path, *words: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``meetara-build WORDS`` in a project's folder, as a person runs it, with a warm process of
    its own (`stop_warm`)."""
    own = project.parent / "tmp"
    own.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "meetara_build", *words],
        cwd=project,
        env={**os.environ, "TMPDIR": str(own), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stop_warm(project: Path) -> None:
    """End the warm process that `meetara` commands of this project started, rather than wait until
    it ends itself."""
    own = str(project.parent / "tmp")
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "meetara_build.engine.warm" in words and words[-1].startswith(own):
            process.kill()
            process.wait(10)
