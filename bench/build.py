"""All 62 domains from nothing, twice: time, overhead, memory, losses, and whether both builds are
equal.

python -m bench.build [--once]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project
from meetara_build.store import journal
from meetara_build.store.manifest import digest_file

BIN = Path(sys.executable).parent
BARE = """
DOMAINS = {domains!r}

rule all:
    input: expand("out/{{domain}}/package", domain=DOMAINS)

rule corpus:
    output: "out/base/corpus"
    shell: "touch {{output}}"

rule base:
    input: "out/base/corpus"
    output: "out/base/base"
    shell: "touch {{output}}"

rule base_gguf:
    input: "out/base/base"
    output: "out/base/gguf"
    shell: "touch {{output}}"

rule dataset:
    input: "out/base/base"
    output: "out/{{domain}}/dataset"
    shell: "touch {{output}}"

rule adapter:
    input: "out/base/base", "out/{{domain}}/dataset"
    output: "out/{{domain}}/adapter"
    shell: "touch {{output}}"

rule merge:
    input: "out/base/base", "out/{{domain}}/dataset", "out/{{domain}}/adapter"
    output: "out/{{domain}}/merge"
    shell: "touch {{output}}"

rule gguf:
    input: "out/base/gguf", "out/{{domain}}/dataset", "out/{{domain}}/adapter", "out/{{domain}}/merge"
    output: "out/{{domain}}/gguf"
    shell: "touch {{output}}"

rule evaluate:
    input: "out/base/gguf", "out/{{domain}}/dataset", "out/{{domain}}/gguf"
    output: "out/{{domain}}/evaluate"
    shell: "touch {{output}}"

rule package:
    input: "out/{{domain}}/dataset", "out/{{domain}}/adapter", "out/{{domain}}/gguf", "out/{{domain}}/evaluate"
    output: "out/{{domain}}/package"
    shell: "touch {{output}}"
"""


def snakemake(folder: Path, *words: str) -> list[str]:
    """A build by Snakemake itself."""
    return [str(BIN / "snakemake"), "--profile", str(folder / "conf" / "profile" / "local"), *words]


def cold_build(folder: Path) -> dict[str, float]:
    """A new project built whole; prints and returns what it took."""
    tiny_project(folder)
    cost = machine.run(snakemake(folder, "all_domains"), folder)
    stages = sum(run.stage_cpu_seconds for run in journal.runs(folder / "artifacts"))
    print(
        f"  wall {cost.seconds / 60:.1f} min, CPU {cost.cpu_seconds:.0f} s, of it in stages {stages:.0f} s"
    )
    print(
        f"  outside the stages' own functions: {1 - stages / cost.cpu_seconds:.1%} of CPU (at most 20%)"
    )
    print(
        f"  peak memory of the whole process tree: {cost.peak_mb / 1000:.2f} GB (at most 4)",
        flush=True,
    )
    return {
        "seconds": round(cost.seconds, 1),
        "cpu_seconds": round(cost.cpu_seconds, 1),
        "outside_share": round(1 - stages / cost.cpu_seconds, 4),
        "peak_gb": round(cost.peak_mb / 1000, 2),
    }


def by_stage(folder: Path) -> None:
    """Median CPU-seconds and memory of each stage."""
    found: dict[str, list[journal.Run]] = {}
    for run in journal.runs(folder / "artifacts"):
        found.setdefault(run.stage, []).append(run)
    for stage, runs in found.items():
        cpu = statistics.median(run.stage_cpu_seconds for run in runs)
        wall = statistics.median(run.seconds for run in runs)
        print(
            f"    {stage:9} {len(runs):3} × {cpu:6.2f} CPU-s, {wall:6.2f} s, {max(run.peak_mb for run in runs):5.0f} MB"
        )


def losses(folder: Path) -> dict[str, float]:
    """How many domains beat the base, and by how much."""
    gains = {}
    for path in sorted((folder / "artifacts").glob("*/evaluation/evaluation.json")):
        content = json.loads(path.read_text())
        gains[path.parents[1].name] = (
            1 - content["variants"]["F16"]["loss"] / content["base"]["loss"]
        )
    better = sum(gain > 0 for gain in gains.values())
    print(f"  {better} of {len(gains)} domains beat the base's held-out loss (at least 60 of 62)")
    spread = sorted(gains.items(), key=lambda item: item[1])
    print(
        f"  improvement: median {statistics.median(gains.values()):.1%}, least {spread[0][1]:.1%} ({spread[0][0]}), "
        f"most {spread[-1][1]:.1%} ({spread[-1][0]})",
        flush=True,
    )
    return {
        "better": better,
        "median": statistics.median(gains.values()),
        "least": spread[0][1],
        "most": spread[-1][1],
    }


def no_op(folder: Path, bare: Path, repeats: int = 5) -> None:
    """A build with nothing to do, beside the same graph in Snakemake alone."""
    (bare / "Snakefile").write_text(
        BARE.format(domains=sorted(path.stem for path in folder.glob("conf/domain/*.yaml")))
    )
    subprocess.run(
        [BIN / "snakemake", "--cores", "2", "--quiet", "all"],
        cwd=bare,
        check=True,
        capture_output=True,
    )
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_timed(snakemake(folder, "all_domains"), folder))
        theirs.append(_timed([str(BIN / "snakemake"), "--cores", "2"], bare))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"  no-op {statistics.median(ours):.2f} s, bare Snakemake {statistics.median(theirs):.2f} s: {ratio:.2f} times "
        "(at most 2)",
        flush=True,
    )


def _timed(command: list[str], folder: Path) -> float:
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    if "Nothing to be done" not in done.stdout + done.stderr:
        raise SystemExit(f"{folder}: not a no-op:\n{(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started


def sums(folder: Path) -> dict[str, str]:
    """sha256 of every GGUF file by its name below the root."""
    root = folder / "artifacts"
    return {
        str(path.relative_to(root)): digest_file(path)
        for path in sorted(root.glob("**/gguf/*.gguf"))
    }


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--once", action="store_true", help="one build only: no comparison of two")
    words.add_argument("--keep", type=Path, help="build in this new folder and leave it")
    given = words.parse_args()
    machine.adopt_orphans()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        above = given.keep or Path(scratch)
        above.mkdir(parents=True, exist_ok=True)
        (above / "bare").mkdir()
        print("cold build of all domains")
        took = cold_build(above / "one")
        by_stage(above / "one")
        below_base = losses(above / "one")
        domains = len(list((above / "one" / "conf" / "domain").glob("*.yaml")))
        keep_result("build", {"domains": domains, **took, "below_base": below_base})
        no_op(above / "one", above / "bare")
        if not given.once:
            print("the same again, in another folder")
            cold_build(above / "two")
            first, second = sums(above / "one"), sums(above / "two")
            equal = sum(first[name] == second.get(name) for name in first)
            print(
                f"  {equal} of {len(first)} GGUF files have the same SHA-256 in both builds (all)"
            )
            keep_result("build_twice", {"domains": domains, "files": len(first), "equal": equal})


if __name__ == "__main__":
    main()
