"""build: do what a plan says, and show how it goes."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meetara_build import history
from meetara_build.engine.exclusive import at_work
from meetara_build.engine.snakemake import build as run_snakemake
from meetara_build.errors import ArtifactError, BuildError
from meetara_build.faces.output import err, out, print_json, progress, table
from meetara_build.faces.planning import look, project_graph, wanted
from meetara_build.graph import Graph
from meetara_build.setup_check import check_llama
from meetara_build.sweep import sweep


def build(words: Sequence[str], profile: str, *, cores: int | None, as_json: bool) -> None:
    """Build domains with Snakemake and show how it goes.

    Raises:
        BuildError: a job failed, or a gate was missed; what is finished is kept.
    """
    check_llama()
    os.environ[history.BUILD] = history.new_build()
    graph = project_graph(profile)
    targets = wanted(graph, words)
    made = look(graph, targets)
    started = time.monotonic()
    done: list[history.Run] = []
    arguments = ["--cores", str(cores)] if cores else []
    with progress() as bar:
        task = bar.add_task("starting", total=len(made.to_do()))

        def listen(run: history.Run) -> None:
            done.append(run)
            bar.update(task, advance=1, description=f"{run.target}/{run.stage} {run.outcome}")
            if not as_json and not err.is_terminal:
                print(f"{run.target}/{run.stage} {run.outcome} in {run.seconds:.1f} s", flush=True)

        with at_work(graph.project, [item.step.name for item in made.to_do()]):
            sweep(graph, made, targets)
            if made.to_do():
                run_snakemake(graph, made, profile, listen, arguments)
    left = look(graph, targets).to_do()
    if left:
        raise BuildError(
            f"{len(left)} steps are still not up to date, {left[0].step.name} first; see `meetara-build plan`"
        )
    _print_built(graph, targets or graph.domains, done, time.monotonic() - started, as_json=as_json)


def _print_built(
    graph: Graph, domains: Sequence[str], done: Sequence[history.Run], seconds: float, *, as_json: bool
) -> None:
    figures = {domain: _figures(graph, domain) for domain in domains}
    if as_json:
        print_json({"seconds": seconds, "runs": [run._asdict() for run in done], "domains": figures})
        return
    if len(domains) <= 12:
        shown = table("domain", ">base loss", ">loss", ">better by", "files")
        for domain, found in figures.items():
            gain = f"{1 - found['loss'] / found['base_loss']:.1%}"
            shown.add_row(domain, f"{found['base_loss']:.3f}", f"{found['loss']:.3f}", gain, found["folder"])
        out.print(shown)
    out.print(f"{len(domains)} domains up to date: {len(done)} stage runs in {seconds:.0f} s")


def _figures(graph: Graph, domain: str) -> dict[str, Any]:
    path = graph.root / domain / "evaluation.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        losses = {"base_loss": evaluation["base"]["loss"], "loss": next(iter(evaluation["variants"].values()))["loss"]}
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise ArtifactError(f"{path}: missing or damaged; run `meetara-build verify --repair {domain}`") from None
    folder = graph.root / domain / "gguf"
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return {**losses, "folder": str(shown)}
