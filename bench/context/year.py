"""A year of history: how long the sections and the plan take then, against an empty context.

python -m bench.context.year [--builds 200]

62 domains are built that often within a year, by a generator: a run of each stage, samples and
progress; every tenth build with another recipe, every fiftieth run failed.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import machine, stand_ins
from bench.context.servers import postgres
from bench.incremental import _edits, dry_run, measure, median, plan, ratio
from bench.result_files import keep_result
from meetara_build.context.local import Local
from meetara_build.context.store import DAY, SECTIONS, Retention
from meetara_build.graph import Graph
from meetara_build.store import journal

BOUND = 50
STAGES = ("dataset", "adapter", "merge", "gguf", "evaluate", "package")
AT_ONCE = 2000


def reports(graph: Graph, builds: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """A year's, oldest first."""
    now = time.time()
    for build in range(builds):
        began = now - 365 * DAY * (1 - build / builds)
        recipe = {"training": {"learning_rate": 1e-4 * (1 + build // 10), "epochs": 3}}
        for number, domain in enumerate(graph.domains):
            about = {
                "domain": domain,
                "build": f"build-{build:04}",
                "machine": journal.machine(),
                "hardware": "cpu",
            }
            for place, stage in enumerate(STAGES):
                at = began + 10 * number + place
                key = f"{build}-{domain}-{stage}"
                failed = draw.random() < 0.02
                yield {
                    "kind": "run",
                    "id": key,
                    "time": at,
                    "stage": stage,
                    "outcome": "failed" if failed else "built",
                    "seconds": draw.uniform(0.1, 8),
                    "cpu_seconds": 1.0,
                    "peak_mb": 800.0,
                    "size": 1000,
                    "usd": 0.001,
                    "metrics": {"validation_loss_after": draw.uniform(4, 6)},
                    "recipe": recipe,
                    "inputs": {"dataset": "d"},
                    "error": "the loss is not finite" if failed else None,
                    **about,
                }
                yield {
                    "kind": "sample",
                    "id": f"s-{key}",
                    "time": at,
                    "stage": stage,
                    "cpu_percent": 99.0,
                    "memory_mb": 700.0,
                    "available_mb": 9000.0,
                    "total_mb": 24000.0,
                    **about,
                }
            for step in range(5):
                yield {
                    "kind": "progress",
                    "id": f"p-{build}-{domain}-{step}",
                    "time": began + 10 * number + step,
                    "step": step,
                    "steps": 5,
                    "loss": 5.0,
                    "seconds": 1.0 * step,
                    "stage": "adapter",
                    **about,
                }


def fill(context: Local, graph: Graph, builds: int) -> int:
    """Deliver a year; how many reports that were."""
    some: list[dict[str, Any]] = []
    count = 0
    for report in reports(graph, builds, random.Random(1)):
        some.append(report)
        count += 1
        if len(some) == AT_ONCE:
            context.deliver(some)
            some = []
    context.deliver(some)
    context.store.prune()
    return count


def seconds(read: Callable[[], Any], repeats: int = 15) -> float:
    """Median time of a call, the first left out."""
    took = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        read()
        took.append(time.perf_counter() - started)
    return statistics.median(took[1:])


def sections(graph: Graph, builds: int, url: str, empty_url: str) -> dict[str, float]:
    """Print how long each section takes, full and empty; return the worst ratio, and that one's
    milliseconds."""
    full, empty = Local(url, Retention()), Local(empty_url, Retention())
    started = time.monotonic()
    count = fill(full, graph, builds)
    print(f"  {count} reports in {time.monotonic() - started:.0f} s")
    worst, worst_seconds = 0.0, 0.0
    for name in SECTIONS:
        for domain in (None, "nutrition"):
            long, short = (
                seconds(lambda c=c, n=name, d=domain: c.section(n, d)) for c in (full, empty)
            )  # type: ignore[misc]
            worst, worst_seconds = max((worst, worst_seconds), (long / short, long))
            print(
                f"  {name} {domain or 'of all'}: {long * 1000:.1f} ms, empty {short * 1000:.1f} ms: {long / short:.1f} times"
            )
    print(f"  the slowest: {worst:.1f} times (at most {BOUND})", flush=True)
    full.close()
    empty.close()
    return {"slowest": round(worst, 1), "ms": round(worst_seconds * 1000, 1)}


def plans(graph: Graph, builds: int, scratch: Path) -> dict[str, float]:
    """Print, and return as shares of bare ``snakemake -n``, how long a plan takes with a year of
    runs in its history, and without."""
    edited, without = (
        stand_ins.aside(graph, scratch / "edited"),
        stand_ins.aside(graph, scratch / "without"),
    )
    bare = stand_ins.for_snakemake(scratch / "bare", graph.domains)
    domain = graph.domains[0]
    lines = []
    for report in reports(graph, builds, random.Random(1)):
        if report["kind"] == "run":
            lines.append(
                json.dumps(
                    journal.Run(
                        report["stage"],
                        report["domain"],
                        "f" * 64,
                        report["outcome"],
                        report["time"],
                        report["seconds"],
                        1.0,
                        1.0,
                        800.0,
                        1000,
                        journal.machine(),
                        report["error"],
                        "k" * 64,
                        1.0,
                        report["build"],
                        "cpu",
                    )._asdict()
                )
            )
    (edited / "artifacts").unlink()
    (edited / "artifacts").mkdir()
    for path in graph.root.iterdir():
        if path.name != "runs.jsonl":
            (edited / "artifacts" / path.name).symlink_to(path)
    journal.path(edited / "artifacts").write_text("\n".join(lines) + "\n")
    commands = {}
    for name, folder in (("a year", edited), ("no year", without)):
        commands[name] = plan(folder, 2)._replace(
            before=_edits(folder / "conf" / "domain" / f"{domain}.yaml")
        )
        commands[f"{name}, again"] = plan(folder, 2)
    took = measure({**commands, "bare -n": dry_run(bare)}, 5)
    for name in commands:
        print(
            f"  plan of an edit, {name} of runs: {median(took, name):.3f} s, {ratio(took, name, 'bare -n'):.2f} times bare "
            "snakemake -n (at most 0.5)"
        )
    return {name: round(ratio(took, name, "bare -n"), 2) for name in commands}


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--builds", type=int, default=200)
    words.add_argument("--domains", type=int, default=62)
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        graph = stand_ins.make_project(scratch / "project", given.domains)
        print(f"{len(graph.domains)} domains, {given.builds} builds\nSQLite", flush=True)
        sqlite = sections(
            graph,
            given.builds,
            f"sqlite:///{scratch / 'full.db'}",
            f"sqlite:///{scratch / 'empty.db'}",
        )
        print("PostgreSQL", flush=True)
        with postgres() as url, postgres() as empty:
            postgresql = sections(graph, given.builds, url, empty)
        plan_ratios = plans(graph, given.builds, scratch)
    about = {"domains": len(graph.domains), "builds": given.builds}
    databases = {"sqlite": sqlite, "postgresql": postgresql}
    keep_result("context_year", {**about, **databases, "plan": plan_ratios})


if __name__ == "__main__":
    main()
