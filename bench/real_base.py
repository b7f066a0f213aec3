"""Sixteen domains on the real base that comes with the tool, each read by its answers: what is
packaged, what is refused, and why.

python -m bench.real_base [--folder FOLDER] [--domains a,b]

Two of each category, the strict ones first, and two more of those. Prints the table, the refusals
and the answers; a run of all sixteen is kept as JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from meetara_build.store import journal

BIN = Path(sys.executable).parent
DOMAINS = (
    *("emergency_care", "medication_management", "mental_health", "nutrition"),
    *("financial_planning", "legal_business", "financial", "legal"),
    *("home_management", "parenting", "academic_tutoring", "study_techniques"),
    *("storytelling", "writing", "cybersecurity", "programming"),
)
PROMPTS = 3
TOKENS = 160


def build(project: Path, domains: Sequence[str]) -> machine.Cost:
    """A new project of these domains on the default base, built as far as each goes."""
    subprocess.run([BIN / "meetara-build", "init", project], check=True, stdout=subprocess.DEVNULL)
    path = project / "conf" / "build.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("domains: all", f"domains: {json.dumps(list(domains))}"), encoding="utf-8"
    )
    profile = project / "conf" / "profile" / "local"
    return machine.run(
        [str(BIN / "snakemake"), "--profile", str(profile), "all_domains"], project, check=False
    )


def figures(project: Path, domain: str, runs: Sequence[journal.Run]) -> dict[str, Any]:
    """What became of one domain: its losses, its cost by stage, its bytes, and why it is refused if
    it is."""
    root = project / "artifacts"
    own = [run for run in runs if run.target == domain]
    failed = [run for run in own if run.outcome == "failed"]
    found: dict[str, Any] = {
        "packaged": (root / domain / "package" / "manifest.json").exists(),
        "refused": failed[-1].error if failed else None,
        "cpu_seconds": {
            run.stage: round(run.cpu_seconds, 1) for run in own if run.outcome == "built"
        },
        "peak_mb": {run.stage: round(run.peak_mb) for run in own if run.outcome == "built"},
        "bytes": sum(file.stat().st_size for file in (root / domain).rglob("*") if file.is_file()),
    }
    evaluation = root / domain / "evaluation" / "evaluation.json"
    if evaluation.exists():
        content = json.loads(evaluation.read_text(encoding="utf-8"))
        found["base_loss"] = content["base"]["loss"]
        found["losses"] = {name: one["loss"] for name, one in content["variants"].items()}
        found["kl"] = {
            name: one["kl_mean"] for name, one in content["variants"].items() if "kl_mean" in one
        }
    return found


def answers(project: Path, domain: str) -> list[dict[str, str]]:
    """What the domain's smallest file says to its first held-out prompts, as it comes, beside what
    a person wrote."""
    if not list((project / "artifacts" / domain / "gguf").glob("*-Q4_K_M.gguf")):
        return []
    lines = (
        (project / "artifacts" / domain / "dataset" / "test.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    found = []
    for record in map(json.loads, lines[:PROMPTS]):
        turns = {turn["role"]: turn["content"] for turn in record["messages"]}
        words = [
            BIN / "meetara-build",
            "chat",
            domain,
            turns["user"],
            "--tokens",
            str(TOKENS),
            "--json",
        ]
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
        found.append(
            {
                "prompt": turns["user"],
                "answer": json.loads(done.stdout)["answer"].strip(),
                "reference": turns["assistant"],
            }
        )
    return found


def show(result: dict[str, Any]) -> None:
    """Print a table of the domains, then sums, refusals and answers."""
    print(machine.describe())
    print(
        f"{'domain':22} {'base':>6} {'F16':>6} {'Q4_K_M':>6} {'below base':>10} {'KL Q4':>6} {'CPU s':>6} {'MB':>5}"
    )
    gains = []
    for name, one in result["domains"].items():
        line = f"{name:22} "
        if "losses" in one:
            gains.append(1 - one["losses"]["F16"] / one["base_loss"])
            line += f"{one['base_loss']:6.3f} {one['losses']['F16']:6.3f} {one['losses']['Q4_K_M']:6.3f} {gains[-1]:10.1%} "
            line += f"{one['kl']['Q4_K_M']:6.3f} "
        cost = sum(one["cpu_seconds"].values())
        print(
            line + f"{cost:6.0f} {one['bytes'] / 1e6:5.0f} {'' if one['packaged'] else 'refused'}"
        )
    packaged = sum(one["packaged"] for one in result["domains"].values())
    print(
        f"{packaged} of {len(result['domains'])} packaged; below the base: median {statistics.median(gains):.1%}, worst {min(gains):.1%}"
    )
    stages = sorted({stage for one in result["domains"].values() for stage in one["cpu_seconds"]})
    for stage in stages:
        costs = [
            one["cpu_seconds"][stage]
            for one in result["domains"].values()
            if stage in one["cpu_seconds"]
        ]
        peaks = [
            one["peak_mb"][stage] for one in result["domains"].values() if stage in one["peak_mb"]
        ]
        print(
            f"{stage:10} {statistics.median(costs):6.1f} CPU-s (median), {max(peaks):6.0f} MB at most"
        )
    print(
        f"all: {result['seconds'] / 60:.1f} min, {result['cpu_seconds']:.0f} CPU-s, peak {result['peak_mb']:.0f} MB"
    )
    for name, one in result["domains"].items():
        if one["refused"]:
            print(f"\n{name} refused: {one['refused']}")
        for said in one["answers"]:
            print(f"\n{name}\n  Q: {said['prompt']}\n  A: {said['answer']}")


def summarize(result: Mapping[str, Any]) -> dict[str, Any]:
    """What docs/figures.md says of all domains together; those that were refused have no losses."""
    domains = list(result["domains"].values())
    measured = [one for one in domains if "losses" in one]
    gains = [1 - one["losses"]["F16"] / one["base_loss"] for one in measured]
    kl = [one["kl"]["Q4_K_M"] for one in measured]
    whole = [sum(one["cpu_seconds"].values()) for one in measured]
    stages = ("adapter", "gguf", "evaluate", "merge")
    return {
        "domains": len(domains),
        "packaged": sum(one["packaged"] for one in domains),
        "refused": sum(not one["packaged"] for one in domains),
        "below_base": {
            "median": statistics.median(gains),
            "worst": min(gains),
            "best": max(gains),
        },
        "kl": {"least": min(kl), "most": max(kl)},
        "cpu_seconds": {
            "all": statistics.median(whole),
            **{
                stage: statistics.median(one["cpu_seconds"][stage] for one in measured)
                for stage in stages
            },
        },
        "peak_gb": {
            "training": max(one["peak_mb"]["adapter"] for one in measured) / 1000,
            "all": result["peak_mb"] / 1000,
        },
        "mb_a_domain": statistics.median(one["bytes"] for one in measured) / 1e6,
    }


def main() -> None:
    """Build, measure, ask, print and keep."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "--folder", type=Path, help="where to build; a temporary folder if not given"
    )
    words.add_argument("--domains", default=",".join(DOMAINS))
    given = words.parse_args()
    machine.adopt_orphans()
    with tempfile.TemporaryDirectory() as scratch:
        project = given.folder or Path(scratch) / "project"
        domains = given.domains.split(",")
        cost = build(project, domains)
        runs = list(journal.runs(project / "artifacts"))
        shared = {
            run.stage: round(run.cpu_seconds, 1) for run in runs if run.target.startswith("base/")
        }
        base = project / "artifacts" / "base" / "smollm2_135m"
        result = {
            **cost._asdict(),
            "base": {
                "cpu_seconds": shared,
                "bytes": (base / "model" / "model.safetensors").stat().st_size,
                "gguf_bytes": (base / "gguf" / "smollm2_135m-F16.gguf").stat().st_size,
            },
            "domains": {
                name: {**figures(project, name, runs), "answers": answers(project, name)}
                for name in domains
            },
        }
    show(result)
    if domains == list(DOMAINS):
        keep_result("real_base", {"summary": summarize(result), **result})


if __name__ == "__main__":
    main()
