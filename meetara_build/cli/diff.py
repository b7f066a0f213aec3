"""Show what differs between two builds' recipes and figures."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from meetara_build.cli.options import Json
from meetara_build.cli.output import out, print_json, style_line, table
from meetara_build.context.differences import differences
from meetara_build.engine.planning import project_graph
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.outside import show_line, show_short
from meetara_build.store import journal
from meetara_build.store.content import Store
from meetara_build.store.manifest import PARTS

CONTEXT_SETTINGS = {"ignore_unknown_options": True}
"""So that -1 is a build, not an option."""


def diff(
    one: Annotated[
        str | None,
        typer.Argument(help="A build's number, or -1 for the last; without it, list them."),
    ] = None,
    other: Annotated[str | None, typer.Argument(help="Another; the last if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two builds' recipes and figures; without arguments, list the
    builds.

    Raises:
        ConfigError: there is no such build, or nothing was built.
    """
    graph = project_graph()
    builds = journal.builds(graph.root)
    if one is None:
        _list_builds(builds, as_json=as_json)
        return
    before, after = _build(builds, one), _build(builds, other or str(len(builds)))
    found = [
        entry
        for key in sorted({*before.keys, *after.keys})
        if (entry := _differs(graph, key, before, after))
    ]
    if as_json:
        print_json(found)
        return
    for entry in found:
        out.print(style_line((f"{entry['step']}  ", "bold"), (entry["state"], "dim")))
        for line in entry["recipe"]:
            out.print(f"  {show_line(line)}")
        for name, (was, is_now) in entry["metrics"].items():
            change = (
                f" ({is_now / was - 1:+.1%})"
                if isinstance(was, float) and isinstance(is_now, float) and was
                else ""
            )
            out.print(
                f"  {show_line(name)}: {_figure(was)} → {_figure(is_now)}{change}", style="cyan"
            )
    out.print(
        f"{len(found)} of {len({*before.keys, *after.keys})} steps differ between build {one} and "
        f"build {other or len(builds)}"
    )


def _list_builds(builds: Sequence[journal.Build], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "number": number,
            "build": build.name or "unnamed",
            "runs": len(build.runs),
            "built": sum(run.outcome == "built" for run in build.runs),
            "failed": sum(run.outcome == "failed" for run in build.runs),
            "machine": build.machine,
        }
        for number, build in enumerate(builds, 1)
    ]
    if as_json:
        print_json(rows)
        return
    shown = table(">number", "began", ">runs", ">built", ">failed", "machine")
    for row in rows:
        shown.add_row(
            *map(
                str,
                (
                    row["number"],
                    row["build"][:20],
                    row["runs"],
                    row["built"],
                    row["failed"],
                    row["machine"],
                ),
            )
        )
    out.print(shown)
    out.print(f"{len(rows)} builds; compare two with `meetara-build diff 1 {max(len(rows), 2)}`")


def _build(builds: Sequence[journal.Build], word: str) -> journal.Build:
    """A build by its number, counted from 1, or from the last with -1."""
    number = int(word) if re.fullmatch(r"-?\d+", word) else 0
    index = number - 1 if number > 0 else number + len(builds)
    if number == 0 or not 0 <= index < len(builds):
        known = f"1 to {len(builds)}" if builds else "none yet"
        raise ConfigError(
            f"no build {word}; there are {known}: see `meetara-build diff` without arguments"
        )
    return builds[index]


def _differs(
    graph: Graph, key: tuple[str, str], before: journal.Build, after: journal.Build
) -> dict[str, Any] | None:
    one, other = before.keys.get(key), after.keys.get(key)
    if one == other:
        return None
    store = Store(graph.store, graph.root)
    was, is_now = (store.recall(word) if word else None for word in (one, other))
    name = f"{key[1]}/{key[0]}"
    if one is None or other is None or was is None or is_now is None:
        state = (
            "only in the later"
            if one is None
            else "only in the earlier"
            if other is None
            else "no longer in the store"
        )
        return {"step": name, "state": state, "recipe": [], "metrics": {}}
    lines = []
    old_parts: dict[str, Any] = {**was.made_from}
    new_parts: dict[str, Any] = {**is_now.made_from}
    for part in PARTS:
        above = [] if part == "recipe" else [part]
        for path, old, new in differences(old_parts[part], new_parts[part], above):
            lines.append(f"{'.'.join(path)}: {show_short(old, 40)} → {show_short(new, 40)}")
    inputs = [
        f"its input {given} is another"
        for given in is_now.inputs
        if was.inputs.get(given) != is_now.inputs[given]
    ]
    metrics = {
        ".".join(path): (old, new) for path, old, new in differences(was.metrics, is_now.metrics)
    }
    same = was.digest() == is_now.digest()
    return {
        "step": name,
        "state": "same files" if same else "other files",
        "recipe": lines or inputs,
        "metrics": metrics,
    }


def _figure(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else show_short(value)
