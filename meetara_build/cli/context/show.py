"""Show what builds used and learnt, and what is at work."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding

from meetara_build.cli.completion import complete_domains
from meetara_build.cli.options import Json
from meetara_build.cli.output import amount, err, out, print_json, style_line, table
from meetara_build.context.delivery import Context, Delivery, make_refused_path
from meetara_build.context.places import is_elsewhere, open_context
from meetara_build.engine.planning import project_graph
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import show_short

POLL_SECONDS = 0.5
COLUMNS, LONGEST = 7, 60
"""Columns and characters of a cell that a terminal has room for; --json has all."""
FIRST = ("domain", "stage", "machine", "time")
LEFT_OUT = ("build", "id", "number")


def show(
    section: Annotated[
        str | None, typer.Argument(help="One of the four sections; all if none is named.")
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Of one domain only.", autocompletion=complete_domains),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again whenever it changes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the sections, or one; again whenever something changes, with ``watch``.

    Raises:
        ConfigError: there is no such section, or no such domain in a context of this project alone.
        ContextError: the context cannot be read.
    """
    from meetara_build.context.store import SECTIONS

    graph = project_graph()
    if section is not None and section not in SECTIONS:
        raise ConfigError(f"unknown section '{section}'{nearest(section, list(SECTIONS))}")
    targets = sorted({target for _, target in graph.steps})
    if domain is not None and domain not in targets and not is_elsewhere(graph.context):
        raise ConfigError(f"unknown domain '{domain}'{nearest(domain, targets)}")
    names = [section] if section else list(SECTIONS)
    context = open_context(graph.root, graph.context)
    delivery = Delivery(graph.root, context)
    try:
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                _watch(context, delivery, names, domain, as_json=as_json)
            return
        delivery.once()
        if delivery.refused:
            err.print(
                f"{amount(delivery.refused, 'report')} put aside: {make_refused_path(graph.root)} says "
                "why"
            )
        found = {name: context.section(name, domain) for name in names}
        print_json(found) if as_json else out.print(_render(found))
    finally:
        context.close()


def _watch(
    context: Context, delivery: Delivery, names: Sequence[str], domain: str | None, *, as_json: bool
) -> None:
    """A new picture for each change, until Ctrl-C; with ``as_json`` a line of JSON."""
    if as_json:
        for found in _changing(context, delivery, names, domain):
            print_json(found, indent=None)
        return
    with Live(
        console=out, screen=out.is_terminal, auto_refresh=False, vertical_overflow="crop"
    ) as live:
        for found in _changing(context, delivery, names, domain):
            live.update(_render(found), refresh=True)


def _changing(
    context: Context, delivery: Delivery, names: Sequence[str], domain: str | None
) -> Iterator[dict[str, dict[str, Any]]]:
    last = None
    while True:
        delivery.once()
        position = context.position()
        if position != last:
            yield {name: context.section(name, domain) for name in names}
        last = position
        time.sleep(POLL_SECONDS)


def _render(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    parts: list[RenderableType] = []
    for name, section in found.items():
        parts.append(style_line((name, "bold")))
        for field, value in section.items():
            parts += _field(field, value, 1)
    return Group(*parts)


def _field(name: str, value: Any, depth: int) -> Iterator[RenderableType]:
    """A field: its figures on a line, a table where it holds rows, and whatever else it holds below
    it."""
    indent = "  " * depth
    said = f"{indent}{name}" + ("" if value else ": nothing yet")
    yield style_line((said, "cyan" if depth == 1 else "dim"))
    if rows := _rows(value):
        yield Padding(_table(rows), (0, 0, 0, len(indent)))
    elif isinstance(value, dict):
        plain = [
            f"{key} {_short(held)}"
            for key, held in value.items()
            if not isinstance(held, dict | list)
        ]
        if plain:
            yield style_line((f"{indent}  {', '.join(plain)}", ""))
        for key, held in value.items():
            if isinstance(held, dict | list):
                yield from _field(key, held, depth + 1)


def _rows(value: Any) -> list[dict[str, Any]]:
    """The rows of a list, or of a mapping from domains to what is known of each."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(isinstance(held, dict) for held in value.values()):
        by_domain = any(
            not isinstance(inner, dict | list) for held in value.values() for inner in held.values()
        )
        return [{"domain": name, **held} for name, held in value.items()] if by_domain else []
    return []


def _table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    flat = [dict(_flat(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row if name not in LEFT_OUT)
    shown_names = sorted(
        names, key=lambda name: (name not in FIRST, "loss" not in name and "gain" not in name)
    )[:COLUMNS]
    shown = table(*(show_short(name.replace("_", " "), LONGEST) for name in shown_names))
    for row in flat:
        shown.add_row(*(_short(row.get(name)) for name in shown_names))
    return shown


def _flat(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if value is None:
        return "-"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", text):
        return datetime.fromisoformat(text).astimezone().strftime("%m-%d\N{NO-BREAK SPACE}%H:%M:%S")
    return show_short(text, LONGEST)
