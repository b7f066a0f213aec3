"""A plan for people: grouped by what caused it, drift apart, then what it takes, and a last line
for grep."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meetara_build.cli.output import amount, money, out, size, span, style_line
from meetara_build.graph import Graph
from meetara_build.graph.stages import NAMES
from meetara_build.outside import show_line, show_short
from meetara_build.plan import MAYBE, RESTORE, RUN, Item, Plan
from meetara_build.plan.base_origins import base_origins
from meetara_build.plan.causes import CONFIG, DRIFT, Cause
from meetara_build.plan.content import decision
from meetara_build.plan.data_losses import data_losses
from meetara_build.plan.estimate import HISTORY, MODEL, SIMILAR, Total
from meetara_build.plan.held_back import list_held_back
from meetara_build.rounds.inbox import newer_plugins

COLOURS = {RUN: "yellow", RESTORE: "cyan", MAYBE: "magenta"}
SHOWN = 6
"""Names in a line before a terminal folds the rest; elsewhere all are printed."""
ORIGINS = {
    HISTORY: "earlier runs of the same steps here",
    SIMILAR: "earlier runs of the same stages here",
    MODEL: "a model, scaled by a probe of this machine",
}


def print_plan(
    graph: Graph, made: Plan, total: Total, profile: str, domains: Sequence[str]
) -> None:
    """Print a plan for these domains, or for all, with its estimates."""
    planned, drifted = _groups(made.to_do())
    for group in planned:
        _print_group(graph, group)
    if drifted:
        out.print("Changed, damaged or deleted behind the tool's back:", style="bold red")
    for group in drifted:
        _print_group(graph, group)
    for origin in base_origins(graph, domains):
        out.print(origin.text())
    for lost in data_losses(graph, made):
        out.print(lost.text())
    for one in list_held_back(made):
        out.print(style_line((f"Held back: {one.domain}: ", "red"), (show_line(one.line()), "")))
    if made.to_do():
        _print_maybe(made)
        _print_total(graph, total, profile)
    out.print(made.summary(), style="bold")


def print_proposals(graph: Graph, proposed: Sequence[Mapping[str, Any]]) -> None:
    """Print what agents propose, before a plan that does not have it yet: the winner of each key,
    why, and the others."""
    if newer := newer_plugins(graph.root, graph.project / "plugins"):
        out.print(
            f"Changed since the agents were asked: {', '.join(newer)}; `meetara-build propose`",
            style="dim",
        )
    if not proposed:
        return
    winners = [one for one in proposed if one["status"] == "wins"]
    out.print(
        f"Proposed by agents ({amount(len(winners), 'change')}; `meetara-build accept ID`, or "
        "`reject ID`):",
        style="bold",
    )
    for one in proposed[: 3 * SHOWN] if out.is_terminal else proposed:
        what, wins = one["proposal"], one["status"] == "wins"
        values = f"{show_short(one['now'])} → {show_short(what['value'])}"
        change = show_line(
            f"{what['domain']} {what['key']}: {values}, by {one['agent']}: {what['reason']}"
        )
        mark = one["id"] if wins else f"  {one['status']}"
        out.print(f"  {mark:12}  {change}", style="" if wins else "dim")
        evidence = f"; evidence: {'; '.join(what['evidence'])}" if what["evidence"] and wins else ""
        out.print(f"                {show_line(one['why'] + evidence)}", style="dim")
    if out.is_terminal and len(proposed) > 3 * SHOWN:
        out.print(f"… and {len(proposed) - 3 * SHOWN} more: `meetara-build propose`", style="dim")


Reached = dict[Cause, list[Item]]
"""Causes that reach steps together, and the steps that each of them reaches."""


def _groups(items: Iterable[Item]) -> tuple[list[Reached], list[Reached]]:
    """What belongs together, the widest reach first; what is drift and nothing else apart."""
    group_of: dict[Cause, Reached] = {}
    for item in items:
        roots = item.roots()
        together: Reached = {}
        for group in {
            id(group_of[cause]): group_of[cause] for cause in roots if cause in group_of
        }.values():
            together, other = (together, group) if len(together) > len(group) else (group, together)
            together.update(other)
            group_of.update(dict.fromkeys(other, together))
        for cause in roots:
            together.setdefault(cause, []).append(item)
            group_of[cause] = together
    groups = list({id(group): group for group in group_of.values()}.values())
    groups.sort(key=lambda group: -max(map(len, group.values())))
    parts = [
        {cause: reached for cause, reached in group.items() if (cause.kind == DRIFT) == drift}
        for drift in (False, True)
        for group in groups
    ]
    planned = [part for part in parts[: len(groups)] if part]
    return planned, [part for part in parts[len(groups) :] if part]


def _print_group(graph: Graph, group: Reached) -> None:
    causes = sorted(group, key=lambda cause: -len(group[cause]))
    items = list({item.step.name: item for reached in group.values() for item in reached}.values())
    for cause in causes[:SHOWN] if out.is_terminal else causes:
        out.print(
            style_line((_with_line(graph, cause), "bold"), (f"  → {_reach(group[cause])}", "dim"))
        )
        if found := decision(graph, cause):
            said = (
                f"base {found['base']} → overlay {found['overlay']}, by {found['agent']}: "
                f"{found['reason']}"
            )
            out.print(f"    {show_line(said)}", style="dim")
    if out.is_terminal and len(causes) > SHOWN:
        out.print(f"… and {amount(len(causes) - SHOWN, 'cause')} more", style="dim")
    for action, stages, targets in _rows(items):
        shown = targets[:SHOWN] if out.is_terminal else targets
        more = f" and {len(targets) - len(shown)} more" if len(targets) > len(shown) else ""
        out.print(
            style_line(
                ("  ", ""),
                (f"{action:8}", COLOURS[action]),
                (f"{' '.join(stages)}: {', '.join(shown)}{more}", ""),
            )
        )


def _rows(items: Iterable[Item]) -> list[tuple[str, list[str], list[str]]]:
    """Action, stages and targets: targets that have the same stages to do in one row."""
    stages: dict[tuple[str, str], list[str]] = {}
    for item in items:
        stages.setdefault((item.action, item.step.target), []).append(item.step.stage)
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (action, target), names in stages.items():
        rows.setdefault((action, tuple(sorted(names, key=NAMES.index))), []).append(target)
    order = {RUN: 0, RESTORE: 1, MAYBE: 2}
    found = sorted(rows.items(), key=lambda row: (order[row[0][0]], NAMES.index(row[0][1][0])))
    return [(action, list(names), sorted(targets)) for (action, names), targets in found]


def _with_line(graph: Graph, cause: Cause) -> str:
    """A cause, with the line where its key stands."""
    text = cause.text()
    if cause.kind != CONFIG or not cause.key:
        return text
    from meetara_build.config.layers import find_line

    line = find_line(graph.project / cause.where, cause.key)
    return text.replace(cause.where, f"{cause.where}:{line}", 1) if line else text


def _reach(items: Sequence[Item]) -> str:
    domains = {
        item.step.target
        for item in items
        if "/" not in item.step.target and item.step.stage != "report"
    }
    return ", ".join(
        [*([amount(len(domains), "domain")] if domains else []), amount(len(items), "stage")]
    )


def _print_maybe(made: Plan) -> None:
    maybe = [item for item in made.items if item.action == MAYBE]
    if not maybe:
        return
    deciding = {item.step.name for item in made.items if item.action == RUN}
    names = sorted({name for item in maybe for name in item.waits if name in deciding})
    shown = names[:SHOWN] if out.is_terminal else names
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    depends = (
        f", if {', '.join(shown)}{more} come{'s' if len(names) == 1 else ''} out different"
        if names
        else ""
    )
    out.print(f"At most {len(maybe)} more{depends}.")


def _print_total(graph: Graph, total: Total, profile: str) -> None:
    parts = [
        f"about {span(total.seconds)} ({span(total.low)} to {span(total.high)}) with "
        f"{amount(total.jobs, 'job')} at once",
        f"{total.peak_mb / 1000:.1f} GB of memory",
        f"{' to '.join(dict.fromkeys([size(total.size), size(total.size_high)]))} of disk",
        "no charge: a machine of your own",
    ]
    if total.dollars is not None and total.dollars_high is not None:
        parts[-1] = (
            f"{money(total.dollars)} to {money(total.dollars_high)} ({profile}, "
            f"{graph.machines['']})"
        )
    out.print("Takes " + ", ".join(parts) + ".")
    said = [f"{ORIGINS[source]} ({count})" for source, count in sorted(total.sources.items())]
    out.print(f"Estimated from {'; '.join(said)}.", style="dim")
