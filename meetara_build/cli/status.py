"""Show which domains are fresh, held back, stale or failed."""

import contextlib
import fcntl
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from meetara_build.cli.options import LOCAL, Json, Profile, Targets
from meetara_build.cli.output import out, print_json, style_line, table
from meetara_build.engine.planning import look, project_graph, select_targets
from meetara_build.graph import Graph
from meetara_build.outside import show_line
from meetara_build.plan import FRESH, Item
from meetara_build.plan.held_back import list_held_back
from meetara_build.store import journal
from meetara_build.store.manifest import MANIFEST

FRESH_STATE, STALE, FAILED, RUNNING, NOT_BUILT = "fresh", "stale", "failed", "running", "not built"
HELD_BACK = "held back"
COLOURS = {
    FRESH_STATE: "green",
    RUNNING: "blue",
    STALE: "yellow",
    FAILED: "red",
    HELD_BACK: "red",
    NOT_BUILT: "dim",
}
COLUMN = 32
"""Characters of a domain's name and state on a terminal, which shows as many side by side as
fit."""


def status(targets: Targets = None, profile: Profile = LOCAL, as_json: Json = False) -> None:
    """Print the state of each domain, and of bundles that are named or built: fresh, held back,
    stale, failed, running or not built; and why, for those that are neither fresh nor new."""
    graph = project_graph(profile)
    by_domain: dict[str, list[Item]] = {
        target: []
        for target in select_targets(graph, targets or [])
        or [*graph.domains, *filter(partial(_is_built, graph), graph.bundles)]
    }
    made = look(graph, bundles=True)
    for item in made.items:
        if item.step.target in by_domain:
            by_domain[item.step.target].append(item)
    last = {(run.stage, run.target): run for run in journal.runs(graph.root, journal.TAIL_BYTES)}
    refused = {one.domain: one.line() for one in list_held_back(made)}
    states = {
        domain: _state(graph, items, last, refused.get(domain))
        for domain, items in by_domain.items()
    }
    if as_json:
        print_json(
            {domain: {"state": state, "note": note} for domain, (state, note) in states.items()}
        )
        return
    _print_states(states)
    counted = {state: sum(found == state for found, _ in states.values()) for state in COLOURS}
    out.print(
        "Status: " + ", ".join(f"{count} {state}" for state, count in counted.items()), style="bold"
    )


def _is_built(graph: Graph, bundle: str) -> bool:
    return (graph.root / bundle / MANIFEST).exists()


def _print_states(states: dict[str, tuple[str, str]]) -> None:
    """On a terminal all domains in columns, then a line for each that needs a word; elsewhere a
    line for each domain."""
    if not out.is_terminal:
        for domain, (state, note) in states.items():
            out.print(show_line(f"{domain:28}{state:12}{note}".rstrip()))
        return
    columns = max(1, out.width // COLUMN)
    shown = table(*[""] * columns)
    cells = [
        style_line(
            ("● ", COLOURS[state]),
            (f"{domain} ", ""),
            ("" if state == FRESH_STATE else state, "dim"),
        )
        for domain, (state, _) in states.items()
    ]
    rows = -(-len(cells) // columns)
    for row in range(rows):
        shown.add_row(
            *(
                cells[row + column * rows] if row + column * rows < len(cells) else ""
                for column in range(columns)
            )
        )
    shown.show_header = False
    out.print(shown)
    for domain, (state, note) in states.items():
        if note:
            out.print(style_line((f"{domain} ", COLOURS[state]), (note, "")))


def _state(
    graph: Graph,
    items: Iterable[Item],
    last: dict[tuple[str, str], journal.Run],
    refused: str | None,
) -> tuple[str, str]:
    """A domain's state, and a note on it; ``refused`` is why its models are held back, if they
    are."""
    every = list(items)
    running = [item.step.stage for item in every if is_running(graph.root, item.step.reference)]
    if running:
        return RUNNING, ", ".join(running)
    waiting = [item for item in every if item.action != FRESH]
    if not waiting:
        return (FRESH_STATE, "") if refused is None else (HELD_BACK, refused)
    for item in waiting:
        run = last.get((item.step.stage, item.step.target))
        if run is not None and not run.is_kept and run.fingerprint == item.step.fingerprint:
            return FAILED, f"{item.step.stage}: {(run.error or 'see its log').splitlines()[0]}"
    if not any((graph.root / item.step.place.manifest).exists() for item in every):
        return NOT_BUILT, ""
    causes = [cause for item in waiting for cause in item.roots()]
    return (
        STALE,
        f"{waiting[0].step.stage}: {causes[0].text() if causes else 'an input may change'}",
    )


def is_running(root: Path, reference: str) -> bool:
    """Whether a process holds the lock of a step: it is being made."""
    with contextlib.suppress(OSError), (root / ".locks" / reference).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
