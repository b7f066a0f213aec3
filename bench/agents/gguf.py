"""What gguf_creation's types of single tensors are worth: divergence from F16 against the uniform
type, at no more bytes.

Domains with one quantized type, Q4_K_M, are built; then the agent proposes, what it proposes is
taken and built, until it proposes nothing more. It sees divergences on the test records; what it
arrives at is compared there, and on the validation records, which nothing that it does depends on.

python -m bench.agents.gguf [--keep FOLDER]
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project
from meetara_build.agents.snapshot import Context
from meetara_build.config.overlay import write_decisions
from meetara_build.config.resolve import Configuration
from meetara_build.config.schema import Decision
from meetara_build.context.places import open_context
from meetara_build.graph import Graph, load
from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import ask_all
from meetara_build.rounds.gathering import gather
from meetara_build.stages import baseline, evaluate
from meetara_build.stages.recipes.baseline import BaselineRecipe
from meetara_build.stages.recipes.evaluate import EvaluateRecipe

BIN = Path(sys.executable).parent
QUANT, AGENT = "Q4_K_M", "gguf_creation"
DOMAINS = (
    "cybersecurity",
    "legal",
    "music",
    "nutrition",
    "parenting",
    "programming",
    "sales",
    "storytelling",
)
ROUNDS = 6
"""More than the agent takes: it tries three mixes of a type, and may go back to one of them."""
BOUND = 1.0
"""The median divergence of what the agent arrives at, as a share of the uniform type's, has to be
below it."""


def project(folder: Path) -> Path:
    """A project of these domains on the base ``tiny``, whose agents may only give types to single
    tensors."""
    made = tiny_project(folder / "project")
    path = made / "conf" / "build.yaml"
    build = yaml.safe_load(path.read_text(encoding="utf-8"))
    build |= {"domains": list(DOMAINS), "keep_merged": True, "locked": ["domain.quants"]}
    build["data"]["validation"] = 0.2  # as many records to compare on as the agent sees
    path.write_text(yaml.safe_dump(build, sort_keys=False), encoding="utf-8")
    for name in DOMAINS:
        path = made / "conf" / "domain" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(
            yaml.safe_dump({**content, "quants": ["F16", QUANT]}, allow_unicode=True),
            encoding="utf-8",
        )
    return made


def build(folder: Path) -> Graph:
    """Build what has changed."""
    done = subprocess.run(
        [BIN / "meetara-build", "build"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{folder}: the build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return load(folder)


def seen(graph: Graph) -> Context:
    """What agents see now."""
    shared = open_context(graph.root, graph.context)
    try:
        return gather(graph, Configuration(graph.project), shared)
    finally:
        shared.close()


def asked(context: Context, hook: str) -> list[Any]:
    """What the agent answers, in a process of its own, as always."""
    work = {
        AGENT: partial(prepare_plugin, AGENT, Path("plugins") / f"{AGENT}.py", {"context": context})
    }
    answer = ask_all(work, {"hook": hook}, 60.0, Path(tempfile.gettempdir()))[AGENT]
    if answer.fault:
        raise SystemExit(f"{AGENT}: {answer.fault}")
    return list(answer.value or [])


def take(graph: Graph, proposal: Mapping[str, Any]) -> None:
    """Write a proposal into its domain's overlay."""
    told = {
        key: proposal[key]
        for key in ("key", "value", "reason", "evidence", "expected_gain", "confidence", "figure")
    }
    write_decisions(graph.project / "conf", proposal["domain"], [Decision(agent=AGENT, **told)])


def divergence(graph: Graph, name: str, files: Path, part: str) -> float:
    """The mean divergence of a domain's quantized file on one part of its records."""
    with tempfile.TemporaryDirectory() as scratch:
        records, output, own = (Path(scratch, part) for part in ("records", "output", "baseline"))
        for folder in (records, output, own):
            folder.mkdir()
        (records / "test.jsonl").write_bytes(
            (graph.root / name / "dataset" / f"{part}.jsonl").read_bytes()
        )
        base = graph.root / "base" / "tiny"
        inputs = {
            "gguf": files,
            "baseline": own,
            "base_gguf": base / "gguf",
            "dataset": records,
            "base": base / "model",
        }
        baseline.run(
            BaselineRecipe.model_validate(graph.step("baseline", name).recipe), inputs, own
        )
        recipe = {**graph.step("evaluate", name).recipe, "quants": ["F16", QUANT]}
        return float(
            evaluate.run(EvaluateRecipe.model_validate(recipe), inputs, output)["kl"][QUANT]
        )


def uniform_files(graph: Graph, folder: Path) -> dict[str, Path]:
    """Each domain's files as they are before the agent does anything, kept beside."""
    kept = {}
    for name in DOMAINS:
        kept[name] = folder / "uniform" / name
        kept[name].mkdir(parents=True, exist_ok=True)
        for quant in ("F16", QUANT):
            target = kept[name] / f"{name}-{quant}.gguf"
            target.unlink(missing_ok=True)
            target.hardlink_to(graph.root / name / "gguf" / target.name)
    return kept


def report(graph: Graph, uniform: Mapping[str, Path]) -> dict[str, float]:
    """A line for each domain, and the medians; what is kept of them."""
    shares: dict[str, list[float]] = {"bytes": [], "test": [], "validation": []}
    print(
        f"{'domain':14} {'bytes':>7} {'KL, test':>9} {'KL, validation':>15}   as shares of the uniform {QUANT}'s"
    )
    for name, before in uniform.items():
        files, file = graph.root / name / "gguf", f"{name}-{QUANT}.gguf"
        found = {"bytes": (files / file).stat().st_size / (before / file).stat().st_size}
        for part in ("test", "validation"):
            found[part] = divergence(graph, name, files, part) / divergence(
                graph, name, before, part
            )
        for figure, share in found.items():
            shares[figure].append(share)
        print(f"{name:14} {found['bytes']:7.1%} {found['test']:9.0%} {found['validation']:15.0%}")
    middle = {figure: median(values) for figure, values in shares.items()}
    print(
        f"{'median':14} {middle['bytes']:7.1%} {middle['test']:9.0%} {middle['validation']:15.0%}   (below {BOUND:.0%})"
    )
    larger = sum(share > 1 for share in shares["bytes"])
    worse = sum(share > 1 for share in shares["validation"])
    print(
        f"{larger} of {len(DOMAINS)} files have more bytes (none), {worse} more divergence on the validation records"
    )
    return {
        "domains": len(DOMAINS),
        "bytes": middle["bytes"],
        "median": middle["validation"],
        "worse": worse,
        "worst": max(shares["validation"]),
    }


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--keep", type=Path, help="build in this new folder and leave it")
    given = words.parse_args()
    machine.adopt_orphans()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        graph = build(project(folder))
        uniform = uniform_files(graph, folder)
        for number in range(1, ROUNDS + 1):
            proposals = asked(seen(graph), "propose")
            print(
                f"round {number}: {len(proposals)} of {len(DOMAINS)} domains get other types",
                flush=True,
            )
            if not proposals:
                break
            for proposal in proposals:
                take(graph, proposal)
            graph = build(graph.project)
        keep_result("agents_gguf", report(graph, uniform))
        for line in asked(seen(graph), "insights"):
            print(f"  {line}")


if __name__ == "__main__":
    main()
