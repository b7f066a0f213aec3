"""What killed builds left below a root and no build goes on from: removed when the next one
begins."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from meetara_build.context.outbox import find_abandoned
from meetara_build.graph import Graph, Step, work_folder
from meetara_build.plan import FRESH, Plan

TEMPORARY = re.compile(r"\..+\.(\d+)")
"""The name under which process N writes a file: ``.NAME.N``."""


def sweep(graph: Graph, made: Plan, domains: Iterable[str]) -> int:
    """Remove work folders, temporaries and half-written files that no step of a plan for these
    domains needs; how many.

    No other build may be at work on them.

    A step that is still to be done goes on from its checkpoint.
    """
    items = {(item.step.stage, item.step.target): item for item in made.items}
    left: list[Path] = []
    for step in graph.above(graph.ends(domains)):
        item = items.get((step.stage, step.target))
        done = item is None if not step.keep else item is not None and item.action == FRESH
        folders = list((graph.root / ".work").glob(f"{step.reference}-" + "[0-9a-f]" * 16))
        if done:
            left += folders
            left += [] if step.keep else [graph.root / step.place.folder]
        elif item is not None and item.key:
            left += [folder for folder in folders if folder != work_folder(graph, step, item.key)]
        left += _half_written(graph, step)
    left += find_abandoned(graph.root)
    there = [path for path in left if path.exists() and not _in_use(path)]
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return len(there)


def _half_written(graph: Graph, step: Step) -> list[Path]:
    folders = {graph.root / step.place.folder, (graph.root / step.log).parent}
    files = [
        Path(file.path) for folder in folders if folder.is_dir() for file in os.scandir(folder)
    ]
    return [
        file for file in files if (found := TEMPORARY.fullmatch(file.name)) and not _alive(found[1])
    ]


def _in_use(folder: Path) -> bool:
    """Whether a live process works there: each run's folder carries its process id."""
    return any(_alive(path.name.removeprefix("out-")) for path in folder.glob("out-*"))


def _alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()
