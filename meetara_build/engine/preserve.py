"""What is built is kept before Snakemake starts a job: it deletes what a job is going to make, also where nothing will differ."""

from meetara_build.artifact import work_key
from meetara_build.graph import Graph
from meetara_build.plan import FRESH, MAYBE, Plan
from meetara_build.plan.sight import Sight
from meetara_build.store import Store


def preserve(graph: Graph, made: Plan) -> None:
    """Have the store hold what a MAYBE would make again, and know what is current here: neither is lost by what follows.

    Both are so already, unless someone deleted the store, chose another, or copied the checkout.
    """
    store, sight = Store(graph.store, graph.root), Sight(graph)
    for item in made.items:
        step = item.step
        if not step.keep:
            continue
        if item.action == FRESH and item.key and store.referred(step.reference) != item.key:
            store.refer(step.reference, item.key, step.place.manifest)
        manifest = sight.manifest(step) if item.action == MAYBE else None
        if manifest is not None and manifest.fingerprint == step.fingerprint:
            key = work_key(step.stage, step.target, step.fingerprint, manifest.inputs)
            if store.look_up(key) is None and not sight.faults(step, manifest):
                store.add(key, manifest, graph.root / step.place.folder)
