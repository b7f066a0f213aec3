"""All domains that come with the tool on the default base, each as its adapter alone, from nothing;
then one training record of one domain is edited, twice.

python -m bench.whole --folder FOLDER [--domains a b]

The second edit finds the processes that the first one left. A run that was interrupted goes on where
it was, but what it took is then the rest's alone, and is not kept.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from meetara_build.store import journal

BIN = Path(sys.executable).parent
FILES = "gguf.files=lora"
EDITED = "nutrition"
BASE = "base/smollm2_135m"


def build(project: Path, domains: Sequence[str]) -> list[str]:
    """The command that builds them."""
    return [str(BIN / "meetara-build"), "build", *domains, FILES]


def edit_record(project: Path, words: str) -> None:
    """Have one answer that a domain is trained on end in other words.

    Raises:
        SystemExit: no training record is found in the domain's file.
    """
    source = project / "conf" / "domain" / f"{EDITED}.jsonl"
    train = project / "artifacts" / EDITED / "dataset" / "train.jsonl"
    known = train.read_text(encoding="utf-8")
    lines = source.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        record = json.loads(line)
        if json.dumps(record["prompt"], ensure_ascii=False) in known:
            lines[place] = json.dumps(
                {**record, "response": f"{record['response']} {words}"}, ensure_ascii=False
            )
            source.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return
    raise SystemExit(f"{source}: none of its records is one that {EDITED} is trained on")


def time_edits(project: Path) -> dict[str, Any]:
    """What a build takes after each of two edits of a record."""
    found: dict[str, Any] = {}
    for name, words in (("edit", "That is all."), ("warm_edit", "That is really all.")):
        edit_record(project, words)
        before, started = len(list(journal.runs(project / "artifacts"))), time.monotonic()
        done = subprocess.run(
            build(project, [EDITED]), cwd=project, check=False, capture_output=True
        )
        seconds = time.monotonic() - started
        if done.returncode and b"[build-held-back]" not in done.stderr:
            raise SystemExit(done.stderr.decode())
        made = list(journal.runs(project / "artifacts"))[before:]
        found[name] = {
            "seconds": seconds,
            "steps": [f"{run.target}/{run.stage}" for run in made if run.outcome == "built"],
        }
    return found


def read_losses(root: Path, domain: str) -> dict[str, float] | None:
    """Held-out loss of the base and of the adapter on each of its files; None where a step before
    has failed."""
    path = root / domain / "evaluation" / "evaluation.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    losses = {name: one["loss"] for name, one in content["variants"].items()}
    return {"base": content["base"]["loss"], "tokens": content["tokens"], **losses}


def summarize(project: Path, domains: Sequence[str]) -> dict[str, Any]:
    """What became of the domains, what they cost, and how good they are."""
    root = project / "artifacts"
    runs = [run for run in journal.runs(root) if run.outcome == "built"]
    own = [run for run in runs if run.target in domains]
    shared = [run for run in runs if run.target.startswith("base/")]
    losses = {name: found for name in domains if (found := read_losses(root, name))}
    gains = {name: 1 - one["F16"] / one["base"] for name, one in losses.items()}
    tokens = sum(one["tokens"] for one in losses.values())
    failed = {
        run.target: run.error for run in journal.runs(root) if run.outcome == "failed" and run.error
    }
    packaged = [name for name in domains if (root / name / "package" / "SHA256SUMS").exists()]
    return {
        "domains": len(domains),
        "packaged": len(packaged),
        "refused": {name: failed.get(name, "") for name in domains if name not in packaged},
        "cpu_seconds": {
            "all": sum(run.cpu_seconds for run in runs),
            "a_domain": sum(run.cpu_seconds for run in own) / len(domains),
            "told": tell(own, len(domains)),
            "shared": sum(run.cpu_seconds for run in shared),
            "shared_told": tell(shared, 1),
        },
        "gb": {
            "adapters": sum_bytes(root, [f"{name}/gguf/*-lora.gguf" for name in domains]),
            "base": sum_bytes(root, [f"{BASE}/gguf/*-F16.gguf", f"{BASE}/quantized/*.gguf"]),
            "all": sum_bytes(root, ["**/*"]),
        },
        "pooled": {
            kind: sum(one[kind] * one["tokens"] for one in losses.values()) / tokens
            for kind in next(iter(losses.values()))
            if kind != "tokens"
        },
        "below_base": {
            "median": statistics.median(gains.values()),
            "worst": min(gains.values()),
            "best": max(gains.values()),
        },
        "losses": losses,
    }


def tell(runs: Sequence[journal.Run], among: int) -> str:
    """CPU-seconds of each stage, spread over so many targets, dearest first."""
    parts: dict[str, float] = {}
    for run in runs:
        parts[run.stage] = parts.get(run.stage, 0.0) + run.cpu_seconds / among
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {cost:.0f}" for name, cost in ordered if cost >= 0.5)


def sum_bytes(root: Path, patterns: Sequence[str]) -> float:
    """Gigabytes of files; those of several names are counted once."""
    files = {
        (state.st_dev, state.st_ino): state.st_size
        for pattern in patterns
        for path in root.glob(pattern)
        if path.is_file() and (state := path.stat())
    }
    return sum(files.values()) / 1e9


def main() -> None:
    """Build, edit, print and keep."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--folder", type=Path, required=True, help="a project that is not there yet")
    words.add_argument("--domains", nargs="+", default=[])
    given = words.parse_args()
    print(machine.describe(), flush=True)
    machine.adopt_orphans()
    project: Path = given.folder
    new = not project.exists()
    if new:
        subprocess.run([BIN / "meetara-build", "init", project], check=True, capture_output=True)
    names = sorted(path.stem for path in (project / "conf" / "domain").glob("*.yaml"))
    domains = given.domains or names
    cost = machine.run(build(project, given.domains), project, check=False)
    result = {
        "seconds": cost.seconds,
        "peak_gb": cost.peak_mb / 1000,
        **summarize(project, domains),
        **time_edits(project),
    }
    print(json.dumps({name: one for name, one in result.items() if name != "losses"}, indent=1))
    if new and not given.domains:
        keep_result("whole", result)


if __name__ == "__main__":
    main()
