"""How much sooner all of 62 domains are built in the order that training_conductor proposes:
Snakemake's own scheduler, jobs that sleep.

python -m bench.agents.makespan [--runs artifacts/runs.jsonl]

Each domain is a chain of three jobs. Times are those of the shipped domains, in proportion to their
records; with ``--runs`` those of a build that was recorded; and lognormal ones (the largest domains
some twenty times the smallest), as with data of one's own. They are scaled so that an ideal build
takes ``IDEAL`` seconds. Compared are the orders by name, as Snakemake chooses without priorities,
and by the agent's priorities; where it proposes none, nothing is measured.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench import machine
from bench.result_files import keep_result
from meetara_build.store.journal import read
from meetara_build.toolbox.makespan import (
    LEAST_GAIN,
    Chains,
    Job,
    longest_first,
    lower_bound,
    makespan,
    usual,
)

IDEAL = 30.0
SLOTS = (2, 8)
SHARES = {"dataset": 0.1, "adapter": 0.65, "gguf": 0.25}
"""About what the stages take of a domain's time on the base ``tiny``; merge, evaluate and package
count as gguf."""
AT = {
    "dataset": "dataset",
    "adapter": "adapter",
    "merge": "gguf",
    "gguf": "gguf",
    "evaluate": "gguf",
    "package": "gguf",
}
SNAKEFILE = """
import json
SECONDS, PRIORITIES = json.load(open("jobs.json"))
URGENT = {"gguf": 2}

rule all:
    input: [f"out/{domain}/gguf" for domain in SECONDS]
    localrule: True
"""
RULE = """
rule {stage}:
    input: {inputs}
    output: "out/{{domain}}/{stage}"
    priority: lambda wildcards: 3 * PRIORITIES.get(wildcards.domain, 0) + URGENT.get("{stage}", 0)
    params: seconds=lambda wildcards: SECONDS[wildcards.domain]["{stage}"]
    shell: "sleep {{params.seconds}}; touch {{output}}"
"""


def shipped() -> Chains:
    """The domains of conf/domain, each as long as it has records."""
    folder = Path(__file__).parents[2] / "conf" / "domain"
    return {path.stem: _chain(path.stat().st_size) for path in sorted(folder.glob("*.jsonl"))}


def lognormal(count: int = 62) -> Chains:
    """Domains of very different sizes."""
    chance = random.Random(5)
    return {
        f"domain_{number:02}": _chain(chance.lognormvariate(0.0, 0.8)) for number in range(count)
    }


def recorded(path: Path) -> Chains:
    """The newest time of each step that a history has."""
    newest = {
        (run.target, run.stage): run.seconds
        for run in read(path.read_bytes())
        if run.outcome == "built"
    }
    domains = sorted({target for target, stage in newest if stage == "package"})
    return {
        name: [
            Job(stage, sum(newest.get((name, one), 0.0) for one, at in AT.items() if at == stage))
            for stage in SHARES
        ]
        for name in domains
    }


def _chain(seconds: float) -> list[Job]:
    return [Job(stage, seconds * share) for stage, share in SHARES.items()]


def scaled(chains: Chains, slots: int) -> Chains:
    """The same, so that the ideal is ``IDEAL`` seconds."""
    factor = IDEAL / lower_bound(chains, slots)
    return {
        name: [Job(job.stage, job.seconds * factor) for job in jobs]
        for name, jobs in chains.items()
    }


def measure(chains: Chains, priorities: Mapping[str, int], slots: int) -> float:
    """Seconds that Snakemake takes for the jobs, from the start of the first to the end of the
    last."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds = {
            name: {job.stage: round(job.seconds, 3) for job in jobs}
            for name, jobs in chains.items()
        }
        (folder / "jobs.json").write_text(json.dumps([seconds, priorities]))
        stages = list(SHARES)
        rules = [
            RULE.format(stage=stage, inputs=f'"out/{{domain}}/{before}"' if before else "")
            for before, stage in zip(["", *stages], stages, strict=False)
        ]
        (folder / "Snakefile").write_text(SNAKEFILE + "".join(rules))
        words = [
            "--cores",
            str(slots),
            "--scheduler",
            "greedy",
            "--scheduler-subsample",
            "200",
            "--quiet",
            "all",
        ]
        started = time.time()
        subprocess.run(
            [sys.executable, "-m", "snakemake", "all", *words],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        ended = [path.stat().st_mtime for path in folder.glob("out/*/*")]
        assert len(ended) == len(chains) * len(stages)
        first = min(
            path.stat().st_mtime - seconds[path.parent.name][path.name]
            for path in folder.glob("out/*/dataset")
        )
        assert first > started
        return max(ended) - first


def report(title: str, chains: Chains) -> dict[str, dict[str, float] | None]:
    """A line for each number of slots; returned are both times, or none where nothing is
    proposed."""
    orders: dict[str, dict[str, float] | None] = {}
    print(f"\n{title}: {len(chains)} domains, the longest {_longest(chains):.1f} times the median")
    print(
        "slots   ideal   by name   without priorities   agent's priorities   domains with one   agent's / by name (simulated)"
    )
    for slots in SLOTS:
        jobs = scaled(chains, slots)
        by_name = {name: len(jobs) - place for place, name in enumerate(sorted(jobs))}
        wanted = longest_first(jobs, slots)
        gain = 1 - usual(jobs, wanted, slots) / usual(jobs, {}, slots)
        if gain < LEAST_GAIN:
            orders[f"{slots} slots"] = None
            print(f"{slots:5} {IDEAL:7.1f}   nothing proposed: an order would save {gain:.1%}")
            continue
        took = [measure(jobs, order, slots) for order in (by_name, {}, wanted)]
        orders[f"{slots} slots"] = {
            "seconds": round(took[2], 1),
            "seconds_by_name": round(took[0], 1),
        }
        simulated = makespan(jobs, wanted, slots) / makespan(jobs, by_name, slots)
        print(
            f"{slots:5} {IDEAL:7.1f} {took[0]:9.1f} {took[1]:20.1f} {took[2]:20.1f} {len(wanted):18} "
            f"{took[2] / took[0]:19.3f} ({simulated:.3f})",
            flush=True,
        )
    return orders


def _longest(chains: Chains) -> float:
    lengths = sorted(sum(job.seconds for job in jobs) for jobs in chains.values())
    return lengths[-1] / lengths[len(lengths) // 2]


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--runs", type=Path, help="the runs.jsonl of a build of many domains")
    given = words.parse_args()
    print(machine.describe())
    if given.runs:
        report("recorded times", recorded(given.runs))
    else:
        report("shipped domains", shipped())
    chains = lognormal()
    orders = report("lognormal times", chains)
    keep_result("agents_makespan", {"domains": len(chains), "orders": orders})


if __name__ == "__main__":
    main()
