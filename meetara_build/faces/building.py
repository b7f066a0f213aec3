"""plan, build and status."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from meetara_build import history
from meetara_build.engine.snakemake import build as run_snakemake
from meetara_build.engine.snakemake import profile_hardware
from meetara_build.errors import ArtifactError, BuildError, ConfigError
from meetara_build.faces.output import err, out, print_json, progress, table
from meetara_build.graph import Graph, find_project, load
from meetara_build.plan import FRESH, MAYBE, RESTORE, RUN, Item, Plan, plan
from meetara_build.schema import nearest
from meetara_build.setup_check import check_llama

COLOURS = {RUN: "yellow", RESTORE: "cyan", MAYBE: "magenta"}


def project_graph(profile: str = "local") -> Graph:
    """The graph of the project we are in, for the machine that a profile names."""
    project = find_project()
    return load(project, profile_hardware(project, profile))


def wanted(graph: Graph, words: Sequence[str]) -> list[str]:
    """Domains named on the command line.

    Raises:
        ConfigError: there is no such domain, or build.yaml leaves it out.
    """
    for word in words:
        if word in graph.domains:
            continue
        if (graph.project / "conf" / "domain" / f"{word}.yaml").exists():
            raise ConfigError(f"{graph.project / 'conf' / 'build.yaml'}: domains: does not name '{word}'; add it there")
        raise ConfigError(f"unknown domain '{word}'{nearest(word, graph.domains)}")
    return list(dict.fromkeys(words))


def show_plan(words: Sequence[str], profile: str, *, as_json: bool) -> bool:
    """Print a plan; whether there is something to do."""
    graph = project_graph(profile)
    made = plan(graph, wanted(graph, words))
    if as_json:
        print_json(plan_content(made))
    else:
        _print_plan(made)
    return bool(made.to_do())


def plan_content(made: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    items = [
        {"step": item.step.name, "stage": item.step.stage, "target": item.step.target, "action": item.action,
         "reasons": item.reasons}
        for item in made.to_do()
    ]  # fmt: skip
    counts = {action.lower(): made.count(action) for action in (RUN, RESTORE, MAYBE, FRESH)}
    return {"version": 1, "items": items, "counts": counts}


def _print_plan(made: Plan) -> None:
    for action, reasons, items in _grouped(made.to_do()):
        out.print(f"[{COLOURS[action]}]{action:8}[/]{_names(items)}")
        for reason in reasons:
            out.print(f"        {reason}", style="dim", markup=False)
    out.print(made.summary())


def _grouped(items: Iterable[Item]) -> list[tuple[str, list[str], list[Item]]]:
    """Items of one action and one set of reasons together, inherited reasons counting as one."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Item]] = {}
    for item in items:
        reasons = ("an input may change",) if item.action == MAYBE else tuple(item.reasons)
        groups.setdefault((item.action, item.step.stage, reasons), []).append(item)
    return [(action, list(reasons), members) for (action, _, reasons), members in groups.items()]


def _names(items: Sequence[Item]) -> str:
    targets = [item.step.target for item in items]
    shown = ", ".join(targets[:6]) + (f" and {len(targets) - 6} more" if len(targets) > 6 else "")
    return f"{items[0].step.stage}: {shown}"


def build(words: Sequence[str], profile: str, *, cores: int | None, as_json: bool) -> None:
    """Build domains with Snakemake and show how it goes.

    Raises:
        BuildError: a job failed, or a gate was missed; what is finished is kept.
    """
    check_llama()
    graph = project_graph(profile)
    targets = wanted(graph, words)
    made = plan(graph, targets)
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

        if made.to_do():
            run_snakemake(graph, made, profile, listen, arguments)
    left = plan(graph, targets).to_do()
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


def show_status(words: Sequence[str], profile: str, *, as_json: bool) -> None:
    """Print each domain's state: fresh, stale, failed or not built."""
    graph = project_graph(profile)
    domains = wanted(graph, words) or graph.domains
    items = plan(graph, domains).items
    last = {(run.stage, run.target): run for run in history.runs(graph.root)}
    states = {domain: _state(domain, items, last) for domain in domains}
    if as_json:
        print_json({domain: {"state": state, "note": note} for domain, (state, note) in states.items()})
        return
    shown = table("domain", "state", "")
    colours = {"fresh": "green", "stale": "yellow", "failed": "red", "not built": "dim"}
    for domain, (state, note) in states.items():
        shown.add_row(domain, f"[{colours[state]}]{state}[/]", note)
    out.print(shown)
    counted = {state: sum(found == state for found, _ in states.values()) for state in colours}
    out.print("Status: " + ", ".join(f"{count} {state}" for state, count in counted.items()))


def _state(domain: str, items: Iterable[Item], last: dict[tuple[str, str], history.Run]) -> tuple[str, str]:
    waiting = [item for item in items if item.step.target == domain and item.action != FRESH]
    if not waiting:
        return "fresh", ""
    for item in waiting:
        run = last.get((item.step.stage, item.step.target))
        if run is not None and run.outcome == "failed" and run.fingerprint == item.step.fingerprint:
            return "failed", f"{item.step.stage}: {(run.error or 'see its log').splitlines()[0]}"
    if all("not built yet" in item.reasons or not item.step.keep for item in waiting if item.action == RUN) and any(
        item.step.stage == "dataset" for item in waiting
    ):
        return "not built", ""
    return "stale", f"{waiting[0].step.stage}: {waiting[0].reasons[0]}"
