"""How near a plan's estimates come: all domains are built, then everything is planned and built
again, and compared.

python -m bench.estimates [--domains N] [--keep FOLDER]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project
from meetara_build.graph import load
from meetara_build.plan import plan
from meetara_build.plan.estimate import fit
from meetara_build.plan.workload import workload
from meetara_build.store import journal

BIN = Path(sys.executable).parent
BOUNDS = {"seconds": 0.25, "peak_mb": 0.25, "size": 0.05}
"""Largest allowed median of the relative errors."""


def meetara(folder: Path, *words: str) -> str:
    """Run a command of the tool; its output."""
    command = [str(BIN / "meetara-build"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def project(folder: Path, domains: int) -> None:
    """A new project with the first so many of the shipped domains."""
    tiny_project(folder)
    names = sorted(path.stem for path in (folder / "conf" / "domain").glob("*.yaml"))[:domains]
    path = folder / "conf" / "build.yaml"
    path.write_text(path.read_text().replace("domains: all ", f"domains: {json.dumps(names)} "))


def change_everything(folder: Path) -> None:
    """Have every stage of every domain run again: other records are held out, another seed, another
    share for the base."""
    path = folder / "conf" / "build.yaml"
    text = path.read_text()
    for old, new in (("seed: 17", "seed: 18"), ("near_group: 0.75", "near_group: 0.74")):
        if old not in text:
            raise SystemExit(f"{path}: no '{old}' to change")
        text = text.replace(old, new)
    path.write_text(text)


def errors(
    planned: Mapping[str, Mapping[str, Any]], taken: Mapping[str, journal.Run], figure: str
) -> dict[str, float]:
    """Relative error of a figure by step."""
    actual = {name: getattr(run, figure) for name, run in taken.items()}
    return {
        name: abs(planned[name][figure] / actual[name] - 1) for name in planned if actual.get(name)
    }


def report(planned: Mapping[str, Any], taken: Mapping[str, journal.Run]) -> dict[str, float]:
    """Print medians over all stages, and for each stage; return those over all."""
    middles = {}
    for figure, bound in BOUNDS.items():
        found = errors(planned, taken, figure)
        middles[figure] = statistics.median(found.values())
        by_stage: dict[str, list[float]] = {}
        for name, error in found.items():
            by_stage.setdefault(name.rpartition("/")[2], []).append(error)
        medians = {stage: statistics.median(values) for stage, values in by_stage.items()}
        print(
            f"{figure}: median error {middles[figure]:.1%} of {len(found)} steps (at most {bound:.0%}); "
            f"of the stages' medians {statistics.median(medians.values()):.1%}"
        )
        print("    " + ", ".join(f"{stage} {error:.0%}" for stage, error in medians.items()))
    return middles


def reference(folder: Path) -> Iterable[str]:
    """What ``REFERENCE`` in plan/estimate.py would be, from this history."""
    graph = load(folder)
    made = plan(graph)
    points: dict[str, list[tuple[float, float]]] = {}
    for run in journal.runs(graph.root):
        if (run.stage, run.target) in graph.steps and run.outcome == "built":
            step = graph.step(run.stage, run.target)
            inputs = {
                name: made.manifests.get((given.stage, given.target))
                for name, given in step.inputs.items()
            }
            points.setdefault(run.stage, []).append((workload(step, inputs.get), run.seconds))
    for stage, found in points.items():
        start, rate = fit(found)
        yield f'    "{stage}": ({start:.2g}, {rate:.2g}),'


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--domains", type=int, default=62)
    words.add_argument("--keep", type=Path, help="build in this new folder and leave it")
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "project"
        project(folder, given.domains)
        meetara(folder, "build")
        change_everything(folder)
        content = json.loads(meetara(folder, "plan", "--json"))
        before = len(list(journal.runs(folder / "artifacts")))
        meetara(folder, "build")
        runs = list(journal.runs(folder / "artifacts"))[before:]
        taken = {f"{run.target}/{run.stage}": run for run in runs if run.outcome == "built"}
        planned = {item["step"]: item["estimate"] for item in content["items"]}
        print(f"{len(planned)} steps planned, {len(taken)} worked out")
        middles = report({name: planned[name] for name in planned if name in taken}, taken)
        whole = runs[-1].started + runs[-1].seconds - runs[0].started
        total = content["estimate"]
        print(
            f"whole build: {total['seconds']:.0f} s planned ({total['low']:.0f} to {total['high']:.0f}), {whole:.0f} s taken"
        )
        about = {"domains": given.domains, "errors": middles}
        spent = {"planned_seconds": total["seconds"], "seconds": whole}
        keep_result(f"estimates_{given.domains}", {**about, **spent})
        print("a reference machine's figures, from this history:", *reference(folder), sep="\n")


if __name__ == "__main__":
    main()
