"""Let the store forget what is neither current nor pinned.

What was not used for longest goes first.
"""

import re
from typing import Annotated

import typer

from meetara_build.cli.options import Json
from meetara_build.cli.output import amount, out, print_json, size
from meetara_build.engine.build_lock import ANY, at_work
from meetara_build.engine.cleanup import sweep
from meetara_build.engine.planning import look, project_graph
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.store.content import Store
from meetara_build.store.gc import collect

SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
AGES = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def gc(
    max_size: Annotated[str | None, typer.Option(help="Keep at most this much, like 10GB.")] = None,
    max_age: Annotated[
        str | None, typer.Option(help="Keep what was used within this time, like 30d.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be forgotten.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forget what is neither current nor pinned, oldest use first, until the store keeps to a
    bound.

    Raises:
        ConfigError: no bound is given, or it is no size or age.
        BuildError: a build is running here.
    """
    if max_size is None and max_age is None:
        raise ConfigError("gc: say how much may stay: --max-size 10GB, or --max-age 30d, or both")
    largest = None if max_size is None else int(_measure(max_size, SIZES, "size", "10GB"))
    oldest = None if max_age is None else _measure(max_age, AGES, "age", "30d")
    graph = project_graph()
    with at_work(graph.project, [ANY]):
        made = look(graph)
        store = Store(graph.store, graph.root)
        found = collect(
            store, made.keys, list_pinned(graph), max_size=largest, max_age=oldest, dry_run=dry_run
        )
        cleared = 0 if dry_run else sweep(graph, made, [])
    if as_json:
        print_json({**found._asdict(), "left_over": cleared, "dry_run": dry_run})
        return
    verb = "would forget" if dry_run else "forgot"
    said = (
        f"{verb} {amount(found.works, 'result')}, {amount(found.blobs, 'file')} of "
        f"{size(found.size)}"
    )
    out.print(
        f"{said} ({size(found.freed)} of disk freed); {amount(found.left_works, 'result')} of "
        f"{size(found.left_size)} stay"
    )
    if largest is not None and found.left_size > largest:
        out.print(
            "What stays is current or pinned, here or in another checkout that shares the store.",
            style="dim",
        )


def list_pinned(graph: Graph) -> set[str]:
    """sha256 of the files that the configuration names by their content: what a warm start begins
    from."""
    trained = (step.recipe["training"] for step in graph.steps.values() if step.stage == "adapter")
    return {training["warm_start"] for training in trained if training["warm_start"]}


def _measure(
    written: str, units: dict[str, float] | dict[str, int], what: str, example: str
) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", written.strip().lower())
    if not found or found[2] not in units:
        raise ConfigError(
            f"gc: '{written}' is no {what}; write it like {example} (units: "
            f"{', '.join(unit for unit in units if unit)})"
        )
    return float(found[1]) * units[found[2]]
