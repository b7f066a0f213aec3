"""The recipes, and how each is run for one domain and one seed, from nothing but the base and the
domain's records.

naive
    What tutorials show: every record padded to 512, batch 2, float32, the output layer at every
    position, 2e-4 falling by a cosine, three epochs, LoRA r 16 on all linear layers; no validation.
peers
    TRL's SFTTrainer, its records in batches of 4 of like length, at the rate that this tool has for
    the base. ``bench.trainer`` found packing the fastest of what TRL offers on a CPU; like length had
    a lower loss at the same CPU-seconds (legal, seed 0: 3.858 and 3.893, 173 and 170).
ours
    ``meetara-build build DOMAIN`` in a project as ``init`` makes it, with nothing in its store.
adapters
    The same with ``gguf.files=lora``: the domain is its adapter alone, on its base's files.

The first two go on alike, each step a process of its own: merged and saved by PEFT, F16 by
llama.cpp's own converter, Q8_0 and Q4_K_M by its own quantizer with an importance matrix of the
training text, the LoRA file by its own converter, and the held-out loss of the base and of each of
the three files by llama.cpp, a process a file. No binary of llama.cpp's is built here, so the
importance matrix is by this tool's code (forward passes in torch, as many tokens as ours takes), the
quantizer is llama.cpp's function of the library, and the losses are by this tool's own loop around
llama.cpp. What Python takes to start such a process is not counted.

All have the same records, split and token ids, which ours makes and counts as its own and the others
are given, as they are given the base's folder. They prove nothing and package nothing; ours does. All
have the same number of threads. The losses that are compared are by one function for all.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from bench.chain.processes import START, Account, limit_threads, run_script, run_worker
from meetara_build.store import journal

TYPES = ("F16", "Q8_0", "Q4_K_M")
BASE = "smollm2_135m"
BIN = Path(sys.executable).parent
IMATRIX_TOKENS = 8192
"""What ``init`` sets as ``gguf.imatrix.tokens``."""
TRAININGS = {"naive": "padded", "peers": "trl"}
BUILDS = {"ours": (), "adapters": ("gguf.files=lora",)}
"""The command line's further words."""
RECIPES = (*TRAININGS, *BUILDS)
TRL_VARIANT = "grouped, high rate"


class Material(NamedTuple):
    """What a run has before it begins."""

    project: Path
    base_file: Path
    shared: dict[str, float]
    threads: int
    trl_python: str

    @property
    def base(self) -> Path:
        """The base as a Hugging Face folder."""
        return self.project / "artifacts" / "base" / BASE / "model"

    def dataset(self, domain: str) -> Path:
        """The records of a domain."""
        return self.project / "artifacts" / domain / "dataset"


class Run(NamedTuple):
    """One domain by one recipe with one seed.

    Attributes:
        parts: CPU-seconds by part, of this domain alone.
        shared: those of what is made once a base, where this run was the one that made it.
        sizes: bytes of the files that a user gets, and of all that is left on the disk.
        nats: of each held-out record's answer, by file; ``base`` is the base's F16 file.
        tokens: of each held-out record's answer.
    """

    recipe: str
    domain: str
    seed: int
    parts: dict[str, float]
    shared: dict[str, float]
    seconds: float
    peak_mb: float
    sizes: dict[str, int]
    nats: dict[str, list[float]]
    tokens: list[int]
    commit: str


def prepare_material(
    work: Path, domains: Sequence[str], threads: int, trl_python: Path
) -> Material:
    """A project whose base and data sets are made, and the base's F16 file by llama.cpp's
    converter."""
    project = work / "material"
    if not project.exists():
        make_project(project)
    wanted = [f"artifacts/base/{BASE}/model", *(f"artifacts/{name}/dataset" for name in domains)]
    profile = project / "conf" / "profile" / "local"
    command = [str(BIN / "snakemake"), "--profile", str(profile)]
    command += [f"{one}/manifest.json" for one in wanted]
    done = subprocess.run(
        command, cwd=project, env=limit_threads(threads), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"no base or data sets:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    material = Material(project, work / "base-F16.gguf", {}, threads, str(trl_python))
    kept = work / "base-F16.json"
    if not kept.exists():
        account = Account()
        convert_model(account, material.base, material.base_file)
        kept.write_text(json.dumps(account.parts), encoding="utf-8")
    return material._replace(shared=json.loads(kept.read_text(encoding="utf-8")))


def make_project(folder: Path) -> None:
    """A new project with the defaults of ``init``."""
    subprocess.run([BIN / "meetara-build", "init", folder], check=True, stdout=subprocess.DEVNULL)


def run_recipe(recipe: str, domain: str, seed: int, material: Material, work: Path) -> Run:
    """Run a recipe from the beginning; whatever an interrupted run left is thrown away."""
    if recipe in BUILDS:
        return run_ours(recipe, domain, seed, material, work)
    folder = work / f"{recipe}-{domain}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = run_others(recipe, domain, seed, material, folder)
    shutil.rmtree(folder)
    return run


def run_others(recipe: str, domain: str, seed: int, material: Material, folder: Path) -> Run:
    """Train by the recipe's own means, then take llama.cpp's tools one after another."""
    account = Account()
    python = material.trl_python if recipe == "peers" else sys.executable
    given = {"base": material.base, "dataset": material.dataset(domain)}
    adapter, merged, files = (folder / name for name in ("adapter", "merged", "files"))
    files.mkdir()

    def work(part: str, name: str, **job: Path | str | int) -> dict[str, Any]:
        return run_worker(account, part, name, {**given, **job}, material.threads)

    trained = {"output": adapter, "seed": seed, "variant": TRL_VARIANT}
    run_worker(account, "train", TRAININGS[recipe], {**given, **trained}, material.threads, python)
    work("merge", "merge", adapter=adapter, output=merged)
    paths = {kind: files / f"{domain}-{kind}.gguf" for kind in TYPES}
    convert_model(account, merged, paths["F16"])
    matrix = folder / "imatrix.npz"
    work("imatrix", "imatrix", merged=merged, output=matrix, tokens=IMATRIX_TOKENS)
    for kind in TYPES[1:]:
        made = {"source": paths["F16"], "target": paths[kind], "imatrix": matrix}
        work("quantize", "quantize", type=kind, **made)
    words = [str(adapter), "--base", str(material.base), "--outtype", "f32", "--outfile"]
    lora = files / f"{domain}-lora.gguf"
    run_script(account, "lora", "convert_lora_to_gguf", [*words, str(lora)])
    judged = {
        name: work("evaluate", "judge", file=path)
        for name, path in {"base": material.base_file, **paths}.items()
    }
    return Run(
        recipe,
        domain,
        seed,
        account.parts,
        material.shared,
        account.seconds,
        account.peak_mb,
        {"files": count_bytes(files), "all": count_bytes(folder)},
        {name: one["nats"] for name, one in judged.items()},
        judged["base"]["tokens"],
        machine.commit(),
    )


def convert_model(account: Account, folder: Path, target: Path) -> None:
    """A Hugging Face folder as an F16 file, by llama.cpp's converter."""
    words = [str(folder), "--outtype", "f16", "--outfile", str(target)]
    run_script(account, "convert", "convert_hf_to_gguf", words)


def run_ours(recipe: str, domain: str, seed: int, material: Material, work: Path) -> Run:
    """Build the domain in the seed's project, in which what the base needs is made by the first
    domain and stays."""
    project, unfinished = work / f"{recipe}-{seed}", work / f"{recipe}-{seed}.unfinished"
    root = project / "artifacts"
    if unfinished.exists() or (root / domain).exists():  # it would go on from what is there
        shutil.rmtree(project, ignore_errors=True)
    unfinished.touch()
    if not project.exists():
        make_project(project)
    seen = sum(1 for _ in journal.runs(root))
    command = [str(BIN / "meetara-build"), "build", domain, f"seed={seed}", *BUILDS[recipe]]
    cost = machine.run(command, project)
    made = list(journal.runs(root))[seen:]
    parts, shared = split_journal(made, domain)
    parts[START] = cost.cpu_seconds - sum(parts.values()) - sum(shared.values())
    judged = judge_ours(root, domain, material)
    unfinished.unlink()
    own = [path for path in (root / domain / "gguf").iterdir() if path.suffix == ".gguf"]
    return Run(
        recipe,
        domain,
        seed,
        parts,
        shared,
        cost.seconds,
        max(run.peak_mb for run in made),
        {"files": sum(path.stat().st_size for path in own), "all": count_bytes(root / domain)},
        {name: one["nats"] for name, one in judged.items()},
        judged["base"]["tokens"],
        machine.commit(),
    )


def judge_ours(root: Path, domain: str, material: Material) -> dict[str, dict[str, Any]]:
    """What the others are judged by, of ours; it costs ours nothing, as ours has judged itself."""
    given = {"base": material.base, "dataset": material.dataset(domain)}
    return {
        name: run_worker(Account(), "evaluate", "judge", {**given, **file}, material.threads)
        for name, file in find_files(root, domain).items()
    }


def split_journal(
    runs: Sequence[journal.Run], domain: str
) -> tuple[dict[str, float], dict[str, float]]:
    """CPU-seconds by stage: the domain's own, and what others will share."""
    own: dict[str, float] = {}
    shared: dict[str, float] = {}
    for run in runs:
        into = own if run.target == domain else shared
        into[run.stage] = into.get(run.stage, 0.0) + run.cpu_seconds
    return own, shared


def find_files(root: Path, domain: str) -> Mapping[str, Mapping[str, Path]]:
    """What is judged of ours: the domain's own file of each type, or the base's with the domain's
    LoRA file over it."""
    base, own = root / "base" / BASE, root / domain / "gguf"
    found: dict[str, Mapping[str, Path]] = {"base": {"file": base / "gguf" / f"{BASE}-F16.gguf"}}
    for kind in TYPES:
        merged = own / f"{domain}-{kind}.gguf"
        folder = base / ("gguf" if kind == "F16" else "quantized")
        laid = {"file": folder / f"{BASE}-{kind}.gguf", "lora": own / f"{domain}-lora.gguf"}
        found[kind] = {"file": merged} if merged.exists() else laid
    return found


def count_bytes(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_run(path: Path) -> Run:
    """A run that was kept."""
    return Run(**json.loads(path.read_text(encoding="utf-8")))


def keep_run(path: Path, run: Run) -> None:
    """Keep a finished run, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{time.time_ns()}")
    scratch.write_text(json.dumps(run._asdict(), indent=1), encoding="utf-8")
    scratch.replace(path)
