"""What all shipped domains answer on the default base, judged: how often base and files find the right
answer of four, what the checks find, and which domains are held back.

python -m bench.answers --folder FOLDER [--seeds 17 18 19] [--domains a b] [--table]

Each seed is a project below FOLDER, built as adapters alone; a run that was interrupted goes on. The
result has every seed that is whole.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from meetara_build.stages.answers import CHECKS
from meetara_build.stages.asking import find_interval
from meetara_build.store import journal
from meetara_build.store.manifest import read_manifest

BIN = Path(sys.executable).parent
SEEDS = (17, 18, 19)
FILES = ("base", "F16", "Q8_0", "Q4_K_M")


def build_seed(project: Path, seed: int, domains: Sequence[str]) -> None:
    """Build the domains with a seed; models that are held back are a result.

    Raises:
        SystemExit: the build failed otherwise.
    """
    if not project.exists():
        subprocess.run([BIN / "meetara-build", "init", project], check=True, capture_output=True)
    words = [BIN / "meetara-build", "build", *domains, f"seed={seed}", "gguf.files=lora"]
    done = subprocess.run(words, cwd=project, check=False, capture_output=True, text=True)
    if done.returncode and "[build-held-back]" not in done.stderr:
        raise SystemExit(f"{project}: {done.stderr[-2000:]}")


def read_domains(root: Path) -> dict[str, dict[str, Any]]:
    """By domain, what its package's manifest says."""
    return {
        path.parts[-3]: {**manifest.metrics, "safety": manifest.made_from["recipe"]["safety"]}
        for path in sorted(root.glob("*/package/manifest.json"))
        if (manifest := read_manifest(path)).metrics.get("answers")
    }


def read_judged(root: Path, domain: str) -> list[dict[str, Any]]:
    """A domain's answers with what was found in them."""
    lines = (root / domain / "package" / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


def summarize_choices(lines: Iterable[Mapping[str, Any]], file: str) -> dict[str, float]:
    """How often a file found the right answer of four likelier, with the 95% interval."""
    nats = [line["answers"][file]["nats"] for line in lines]
    chosen = [one for one in nats if one]
    right = sum(one[0] < min(one[1:]) for one in chosen)
    low, high = find_interval(right, len(chosen))
    return {"choices": len(chosen), "accuracy": right / len(chosen), "low": low, "high": high}


def summarize_checks(lines: Sequence[Mapping[str, Any]], file: str) -> dict[str, float]:
    """By check, in which share of a file's answers it finds something."""
    found: Counter[str] = Counter()
    for line in lines:
        findings = line["answers"][file]["findings"]
        found.update({one["check"] for one in findings})
        found["any"] += bool(findings)
        found["harmful"] += any(one["harmful"] for one in findings)
    names = [*(check.name for check in CHECKS), "any", "harmful"]
    return {name: found[name] / len(lines) for name in names}


def count_reasons(refusals: Iterable[str]) -> dict[str, int]:
    """Because of which bound domains are held back; one may be for several."""
    found: Counter[str] = Counter()
    for text in refusals:
        keys = [line.rpartition("(")[2] for line in text.splitlines() if "(answers." in line]
        named = {key.partition(":")[0].rpartition(".")[2] for key in keys}
        found.update(named or {"loss, KL or an accepted build"})
    return dict(found.most_common())


def measure_cost(root: Path, domains: Sequence[str]) -> dict[str, float]:
    """CPU-seconds of a domain: all its steps, and of them what answering and judging took."""
    runs = [run for run in journal.runs(root) if run.target in domains and run.size]
    asked = sum(
        one.get("answer_cpu_seconds", 0.0)
        for name in domains
        for one in json.loads((root / name / "evaluation" / "evaluation.json").read_bytes())[
            "measured"
        ].values()
    )
    judged = sum(run.cpu_seconds for run in runs if run.stage == "package")
    return {
        "all": sum(run.cpu_seconds for run in runs) / len(domains),
        "answering": asked / len(domains),
        "packaging": judged / len(domains),
        "share": (asked + judged) / sum(run.cpu_seconds for run in runs),
    }


def summarize(roots: Mapping[int, Path]) -> dict[str, Any]:
    """All seeds together, and which domains each holds back."""
    every, strict, held, cost = [], [], {}, {}
    for seed, root in roots.items():
        domains = read_domains(root)
        for name, metrics in domains.items():
            lines = read_judged(root, name)
            every += lines
            strict += lines if metrics["safety"] == "strict" else []
        held[seed] = {
            name: metrics["held_back"]["message"]
            for name, metrics in domains.items()
            if "held_back" in metrics
        }
        cost[seed] = measure_cost(root, list(domains))
        counted = len(domains), sum(one["safety"] == "strict" for one in domains.values())
    reasons = count_reasons(text for found in held.values() for text in found.values())
    return {
        "seeds": list(roots),
        "domains": counted[0],
        "strict": counted[1],
        "answers": len(every),
        "choices": {file: summarize_choices(every, file) for file in FILES},
        "checks": {file: summarize_checks(every, file) for file in FILES},
        "strict_checks": {file: summarize_checks(strict, file) for file in FILES},
        "held_back": {str(seed): sorted(found) for seed, found in held.items()},
        "held_back_told": ", ".join(f"{len(found)} ({seed})" for seed, found in held.items()),
        "reasons_told": ", ".join(f"{name} {count}" for name, count in reasons.items()),
        "cost": {
            name: sum(one[name] for one in cost.values()) / len(cost)
            for name in next(iter(cost.values()))
        },
    }


def main() -> None:
    """Build what is missing, print and keep."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--folder", type=Path, required=True)
    words.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    words.add_argument("--domains", nargs="+", default=[])
    words.add_argument("--table", action="store_true", help="build nothing: only what is there")
    words.add_argument("--beside", default="nothing that was told", help="what else ran")
    given = words.parse_args()
    print(machine.describe(), flush=True)
    machine.adopt_orphans()
    for seed in given.seeds if not given.table else ():
        build_seed(given.folder / f"seed-{seed}", seed, given.domains)
    roots = {
        seed: root
        for seed in given.seeds
        if (root := given.folder / f"seed-{seed}" / "artifacts").exists()
    }
    result = {"beside": given.beside, **summarize(roots)}
    print(json.dumps(result, indent=1))
    if not given.domains:
        keep_result("answers", result)


if __name__ == "__main__":
    main()
