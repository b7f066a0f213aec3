"""What is built is kept before Snakemake starts a job: it deletes what a job is going to make, also
where nothing will differ."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from meetara_build.graph import Graph, Step
from meetara_build.plan import FRESH, MAYBE, Plan
from meetara_build.plan.inventory import Sight
from meetara_build.store.content import Store, find_work_key


def preserve(graph: Graph, made: Plan) -> None:
    """Have the store hold what a MAYBE would make again, and know what is current here: neither is
    lost by what follows.

    Both are so already, unless someone deleted the store, chose another, or copied the checkout.
    """
    store, sight = Store(graph.store, graph.root), Sight(graph)
    for item in made.items:
        step = item.step
        if not step.keep:
            continue
        key = item.key if item.action == FRESH else ""
        manifest = sight.manifest(step) if item.action == MAYBE else None
        if manifest is not None and manifest.fingerprint == step.fingerprint:
            key = find_work_key(manifest)
            if store.look_up(key) is None and not sight.faults(step, manifest):
                store.add(key, manifest, graph.root / step.place.folder)
        if key and store.read_reference(step.reference) != key:
            store.refer(step.reference, key, step.place.manifest)


def unseal(graph: Graph, made: Plan) -> None:
    """Let the files of what is not fresh be written again: Snakemake refuses a job whose outputs
    are read-only.

    Only root never sees that. Nothing is deleted, since Snakemake may only have been asked what it
    would do.
    """
    for item in made.to_do():
        for path in _find_sealed(graph, item.step):
            with contextlib.suppress(OSError):  # another user's: Snakemake names it; or gone by now
                path.chmod(path.stat().st_mode | stat.S_IWUSR)


def _find_sealed(graph: Graph, step: Step) -> Iterator[Path]:
    """The files in a step's folder that may not be written; a rule's outputs are all in it."""
    with (
        contextlib.suppress(FileNotFoundError),
        os.scandir(graph.root / step.place.folder) as entries,
    ):
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.stat().st_mode & stat.S_IWUSR:
                yield Path(entry.path)
