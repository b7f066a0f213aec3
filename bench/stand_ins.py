"""Projects in which everything is built, made in seconds; and the same graph, built too, for
Snakemake alone, make and DVC.

Artifacts are small stand-ins, written through the real stage run: real manifests, store and
records, but no work.
"""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from bench.build import BARE, BIN, snakemake
from bench.tiny import tiny_project
from meetara_build.engine import job, stage_run
from meetara_build.graph import Graph, load
from meetara_build.graph.stages import STAGE, list_ggufs
from meetara_build.store.manifest import MEASURED

ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "DVC_NO_ANALYTICS": "1"}
"""So that make answers in English, and DVC reports nothing to anyone."""

MODEL = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
)
BESIDE = {"corpus": ("card.json",), "base": MODEL, "merge": MODEL}
"""What stages write besides what their rules declare."""

SIZES = {
    "-F16.gguf": 5_774_272,
    "-Q8_0.gguf": 3_132_352,
    "-Q4_K_M.gguf": 2_035_904,
    "-lora.gguf": 789_856,
    "/adapter_model.safetensors": 791_816,
    "/model.safetensors": 11_282_472,
    "/tokenizer.json": 263_418,
    "/records.jsonl": 6_200,
    ".jsonl": 39_053,
}
"""Bytes of real artifacts on the base ``tiny``, by the end of their names."""

NEEDS = {
    "dataset": ("base",),
    "adapter": ("base", "dataset"),
    "merge": ("base", "dataset", "adapter"),
    "gguf": ("base_gguf", "dataset", "adapter", "merge"),
    "evaluate": ("base_gguf", "dataset", "gguf"),
    "package": ("dataset", "adapter", "gguf", "evaluate"),
}
"""The graph of ``bench.build.BARE`` for make and DVC: a domain's stages and what they read."""


def quietly(words: list[str], folder: Path) -> None:
    """Run a command that must succeed.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(words)} failed in {folder}:\n{(done.stdout + done.stderr)[-2000:]}"
        )


def make_project(folder: Path, count: int) -> Graph:
    """A project with this many domains, every artifact of it in its place and in the store."""
    tiny_project(folder)
    _choose_domains(folder / "conf", count)
    graph = load(folder)
    perform = functools.partial(_stand_in, full_size=graph.domains[0])
    with mock.patch.object(job, "perform", perform):
        for step in graph.above(graph.ends()):
            stage_run.run(graph, step, cold=True)
    return graph


def _choose_domains(conf: Path, count: int) -> None:
    """The first of the shipped domains; or all, and as many copies of them as are wanted, with data
    of their own."""
    shipped = sorted(path.stem for path in (conf / "domain").glob("*.yaml"))
    if count < len(shipped):
        build = conf / "build.yaml"
        chosen = f"domains: [{', '.join(shipped[:count])}]"
        build.write_text(re.sub(r"^domains:.*$", chosen, build.read_text(), flags=re.MULTILINE))
    for number in range(len(shipped), count):
        name = shipped[number % len(shipped)]
        copy = f"{name}_{number // len(shipped) + 1}"
        text = (conf / "domain" / f"{name}.yaml").read_text()
        (conf / "domain" / f"{copy}.yaml").write_text(
            text.replace(f"path: {name}.jsonl", f"path: {copy}.jsonl")
        )
        shutil.copyfile(conf / "domain" / f"{name}.jsonl", conf / "domain" / f"{copy}.jsonl")


def _stand_in(request: Mapping[str, Any], full_size: str) -> int:
    """Instead of a stage's work: a line in each file it would write; the base's and one domain's
    files in full size."""
    output, recipe = Path(request["output"]), request["recipe"]
    target, _, stage = request["name"].rpartition("/")
    if stage == "gguf":
        names = ["proof.json", *list_ggufs(recipe["name"], recipe)]
    else:
        names = [*STAGE[stage].list_files("", recipe), *BESIDE.get(stage, ())]
    for name in names:
        line = f"{request['name']}/{name}"
        content = f"{line}\n"
        if name.endswith(".json"):
            content = json.dumps({"stands_for": line, MEASURED: {"seconds": 0.0}}) + "\n"
        if target == full_size or target.startswith("base/"):
            content = content.ljust(
                next((size for end, size in SIZES.items() if line.endswith(end)), 0)
            )
        (output / name).write_text(content)
    took = {"pid": os.getpid(), "seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0}
    output.with_name(job.FIGURES).write_text(json.dumps({"metrics": {"files": len(names)}, **took}))
    return 0


def record(project: Path) -> None:
    """Have Snakemake record every job as done, as after a build of its own; it deletes the merged
    models too."""
    quietly([*snakemake(project, "all_domains"), "--touch", "--forceall"], project)


def aside(graph: Graph, folder: Path) -> Path:
    """The same configuration and the same artifacts seen from another folder, whose configuration
    may be edited."""
    shutil.copytree(graph.project / "conf", folder / "conf")
    (folder / graph.root.relative_to(graph.project)).symlink_to(graph.root)
    return folder


def aside_with_one_domain(graph: Graph, folder: Path) -> Path:
    """The same with copies of the base's and the first domain's artifacts alone, which may be
    deleted; and the store."""
    root = aside(graph, folder) / graph.root.relative_to(graph.project)
    root.unlink()
    for name in ("base", graph.domains[0]):
        shutil.copytree(graph.root / name, root / name)
    (root / "store").symlink_to(graph.root / "store")
    return folder


def _jobs(domains: Iterable[str]) -> dict[str, list[str]]:
    """Every file of the graph and what it is made from."""
    base = {"base": "out/base/base", "base_gguf": "out/base/gguf"}
    found: dict[str, list[str]] = {
        "out/base/corpus": [],
        "out/base/base": ["out/base/corpus"],
        "out/base/gguf": ["out/base/base"],
    }
    for domain in domains:
        for stage, needs in NEEDS.items():
            found[f"out/{domain}/{stage}"] = [
                base.get(name, f"out/{domain}/{name}") for name in needs
            ]
    return found


def for_snakemake(folder: Path, domains: list[str]) -> Path:
    """The graph in Snakemake alone, built."""
    folder.mkdir()
    (folder / "Snakefile").write_text(BARE.format(domains=domains))
    quietly(
        [str(BIN / "snakemake"), "--cores", "2", "--scheduler", "greedy", "--quiet", "all"], folder
    )
    return folder


def for_make(folder: Path, domains: list[str]) -> Path:
    """The graph as a Makefile, built."""
    folder.mkdir()
    rules = [f"all: {' '.join(f'out/{domain}/package' for domain in domains)}"]
    for output, inputs in _jobs(domains).items():
        rules.append(f"{output}: {' '.join(inputs)}\n\t@mkdir -p $(@D)\n\t@echo $@ > $@")
    (folder / "Makefile").write_text("\n\n".join(rules) + "\n")
    quietly(["make", "--jobs=2"], folder)
    return folder


def for_dvc(folder: Path, domains: list[str], dvc: str) -> Path:
    """The graph as a dvc.yaml, built: the files are written here and committed, which leaves what
    running it would."""
    folder.mkdir()
    stages = {}
    for output, inputs in _jobs(domains).items():
        name = output.removeprefix("out/").replace("/", "-")
        stages[name] = {"cmd": f"echo {output} > {output}", "deps": inputs, "outs": [output]}
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).write_text(f"{output}\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for words in (
        ["init", "--no-scm"],
        ["config", "core.check_update", "false"],
        ["commit", "--force"],
    ):
        quietly([dvc, *words], folder)
    return folder
