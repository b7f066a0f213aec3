"""Say what an artifact was made from, and what would change it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meetara_build.cli.completion import complete_targets
from meetara_build.cli.options import LOCAL, Json, Profile
from meetara_build.cli.output import out, print_json, size, span, style_line
from meetara_build.engine.planning import look, project_graph, select_targets
from meetara_build.errors import ArtifactError, ConfigError, nearest
from meetara_build.graph import Graph, Step
from meetara_build.graph.fingerprint import file_of
from meetara_build.graph.stages import ABOVE_BASES, ABOVE_BUNDLES, NAMES
from meetara_build.outside import show_line, show_short
from meetara_build.plan import FRESH, Item
from meetara_build.plan.causes import shorten_path
from meetara_build.plan.held_back import HeldBack
from meetara_build.plan.provenance import origin
from meetara_build.store import journal
from meetara_build.store.content import Store
from meetara_build.store.manifest import Manifest, read_manifest

SHORT = 12
"""Characters of a digest that people are shown."""


def explain(
    what: Annotated[
        str,
        typer.Argument(
            help="DOMAIN, DOMAIN/STAGE, base/NAME, bundle/NAME, or a file below the root.",
            autocompletion=complete_targets,
        ),
    ],
    profile: Profile = LOCAL,
    as_json: Json = False,
) -> None:
    """Say what made a domain or bundle, one of its stages or one file, and what would change it.

    Raises:
        ConfigError: no such domain, stage or file.
        ArtifactError: it is not built.
    """
    graph = project_graph(profile)
    steps = _find_steps(graph, what)
    made = look(graph, bundles=True)
    items = {item.step.name: item for item in made.items}
    last = {(run.stage, run.target): run for run in journal.runs(graph.root) if run.is_kept}
    found = [
        _explain(
            graph, step, items.get(step.name), last.get((step.stage, step.target)), made.manifests
        )
        for step in steps
    ]
    if as_json:
        print_json(found)
        return
    for entry in found:
        _print_explained(entry)


def _find_steps(graph: Graph, what: str) -> list[Step]:
    """The steps that ``nutrition``, ``nutrition/adapter`` or a file's path means."""
    inside = (graph.root / what, Path.cwd() / what)
    for file in inside:
        if file.is_file() and file.resolve().is_relative_to(graph.root):
            return [_step_of_file(graph, file.resolve())]
    if what in graph.domains or what in graph.bundles:
        return [step for step in graph.steps.values() if step.target == what]
    if steps := _list_of_base(graph, what):
        return steps
    target, _, stage = what.rpartition("/")
    if (stage, target) in graph.steps:
        return [graph.step(stage, target)]
    if target in graph.domains:
        stages = [step.stage for step in graph.steps.values() if step.target == target]
        raise ConfigError(
            f"{what}: {target} has no such stage, and there is no such file{nearest(stage, stages)}"
        )
    if what.startswith(ABOVE_BASES):
        bases = {
            step.target for step in graph.steps.values() if step.target.startswith(ABOVE_BASES)
        }
        raise ConfigError(f"{what}: no such base in this build{nearest(what, sorted(bases))}")
    if what.startswith(ABOVE_BUNDLES) and what.count("/") == 1:
        select_targets(graph, [what])
    if stage in NAMES or not target:
        select_targets(graph, [target or what])
    raise ConfigError(f"{what}: no domain, stage or file of this build; see `meetara-build status`")


def _list_of_base(graph: Graph, base: str) -> list[Step]:
    """A base's steps, but for those that only bundles need and that are not built."""
    needed = {step.name for step in graph.above(graph.ends())}
    return [
        step
        for step in graph.steps.values()
        if step.target == base
        and (step.name in needed or (graph.root / step.place.manifest).exists())
    ]


def _step_of_file(graph: Graph, file: Path) -> Step:
    name = str(file.relative_to(graph.root))
    owners = [
        step
        for step in graph.steps.values()
        if name == step.place.manifest or name.startswith(f"{step.place.folder}/")
    ]
    for step in sorted(owners, key=lambda step: -len(step.place.folder)):
        manifest = _manifest(graph, step)
        if name == step.place.manifest or (
            manifest and name.removeprefix(f"{step.place.folder}/") in manifest.files
        ):
            return step
    raise ConfigError(
        f"{file}: no step of this build made it; if you do not know it either, delete it"
    )


def _manifest(graph: Graph, step: Step) -> Manifest | None:
    try:
        return read_manifest(graph.root / step.place.manifest)
    except ArtifactError:
        store = Store(graph.store, graph.root)
        return None if step.keep else store.recall(store.read_reference(step.reference))


def _explain(
    graph: Graph,
    step: Step,
    item: Item | None,
    run: journal.Run | None,
    manifests: Mapping[tuple[str, str], Manifest],
) -> dict[str, Any]:
    manifest = _manifest(graph, step)
    if manifest is None:
        raise ArtifactError(
            f"{step.name}: not built yet; run `meetara-build build`, or see `meetara-build plan`"
        )
    inputs = {
        graph.step(given.stage, given.target).name: manifest.inputs.get(name, "")
        for name, given in step.inputs.items()
        if given.reads
    }
    keys = [
        _key_line(graph, step, path, value) for path, value in _leaves(manifest.made_from["recipe"])
    ]
    decisions = [
        {name: change[name] for name in ("key", "below", "value", "agent", "reason", "path")}
        for change in graph.changes.get(step.target, ())
        if change["agent"]
        and any(change["key"] in (line["key"], f"domain.{line['key']}") for line in keys)
    ]
    state = (
        "fresh"
        if item is None or item.action == FRESH
        else f"{item.action}: {'; '.join(c.text() for c in item.roots())}"
    )
    return {
        "step": step.name,
        "state": state,
        "files": dict(manifest.files),
        "inputs": inputs,
        "sources": {
            shorten_path(graph, step.sources.get(name, name)): digest
            for name, digest in manifest.made_from["sources"].items()
        },
        "keys": keys,
        "code": [file_of(module) for module in manifest.made_from["code"]],
        "libraries": manifest.made_from["libraries"],
        "decisions": decisions,
        "metrics": manifest.metrics,
        "fingerprint": manifest.fingerprint,
        "run": run._asdict() if run else None,
    }


def _key_line(graph: Graph, step: Step, path: Sequence[str], value: Any) -> dict[str, Any]:
    found = origin(graph, step, path)
    where, key = (found.file, found.key) if found else ("the stages before", ".".join(path))
    return {"file": where, "key": key or ".".join(path), "value": value}


def _leaves(recipe: Mapping[str, Any], above: Sequence[str] = ()) -> list[tuple[list[str], Any]]:
    found = []
    for key, value in recipe.items():
        if value is None:  # not set: mostly what another kind of base, or of source, would say
            continue
        found += (
            _leaves(value, [*above, key])
            if isinstance(value, dict) and value
            else [([*above, key], value)]
        )
    return found


def _print_explained(entry: Mapping[str, Any]) -> None:
    out.print()
    out.print(
        style_line(
            (f"{entry['step']}  ", "bold"),
            (entry["state"], "green" if entry["state"] == "fresh" else "yellow"),
        )
    )
    if run := entry["run"]:
        when = datetime.fromtimestamp(run["started"], UTC).strftime("%Y-%m-%d %H:%M UTC")
        _print_row(
            f"{run['outcome']} {when} in {span(run['seconds'])}, {run['peak_mb']:.0f} MB, on "
            f"{run['machine']}"
        )
    if refusal := entry["metrics"].get("held_back"):
        _print_row(f"held back: {HeldBack(entry['step'], **refusal).line()}", "red")
    for name, file in entry["files"].items():
        _print_row(f"made     {name}  {size(file['size'])}  {file['sha256'][:SHORT]}")
    for name, digest in [*entry["inputs"].items(), *entry["sources"].items()]:
        _print_row(f"from     {name}  {digest[:SHORT]}")
    for change in entry["decisions"]:
        values = f"{change['below']} → {change['value']}"
        _print_row(f"decided  {change['key']}: {values}, by {change['agent']}: {change['reason']}")
    by_file: dict[str, list[str]] = {}
    for line in entry["keys"]:
        by_file.setdefault(line["file"], []).append(
            f"{line['key']}={show_short(line['value'], 40)}"
        )
    for file, keys in by_file.items():
        _print_row(f"by       {file}: {', '.join(keys)}")
    _print_row(f"by       code: {', '.join(entry['code'])}", "dim")
    _print_row(
        "by       "
        f"{', '.join(f'{name} {version}' for name, version in entry['libraries'].items())}",
        "dim",
    )
    _print_row(
        "A change of any of the keys, files and versions above, or of a result it is made from, "
        "changes it.",
        "dim",
    )


def _print_row(text: str, style: str = "") -> None:
    out.print(f"  {show_line(text)}", style=style)
