"""What a build will do and why, from the graph, the manifests that are there and the store; reads
only."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meetara_build.graph import Graph, Input, Step
from meetara_build.plan.causes import (
    ABOVE,
    INPUT,
    NEW,
    TEMPORARY,
    Cause,
    drift_causes,
    manifest_drift,
    own_causes,
)
from meetara_build.plan.inventory import Sight
from meetara_build.store.content import Store
from meetara_build.store.manifest import Manifest, digest_json, work_key

RUN, RESTORE, MAYBE, FRESH = "RUN", "RESTORE", "MAYBE", "FRESH"

Key = tuple[str, str]
"""Stage and target."""


class Item(NamedTuple):
    """One step of a plan.

    ``RUN`` it will be worked out, ``RESTORE`` the store has its bytes, ``MAYBE`` only if an input
    turns out different. ``causes`` are the step's own, ``inherited`` those of the steps it waits
    for (``waits``, by name); ``key`` is the work's in the store where the inputs are known already.
    """

    step: Step
    action: str
    causes: tuple[Cause, ...] = ()
    inherited: tuple[Cause, ...] = ()
    waits: tuple[str, ...] = ()
    key: str = ""

    def roots(self) -> tuple[Cause, ...]:
        """What it all comes from: its own causes, and those it inherits."""
        found = dict.fromkeys((*self.causes, *self.inherited))
        return tuple(cause for cause in found if cause.kind not in (TEMPORARY, ABOVE)) or tuple(
            found
        )


class Plan(NamedTuple):
    """The steps of a build, each after those it needs.

    ``manifests`` are those there, or that the store will give; ``keys`` the work that they are, or
    will be, results of.
    """

    items: list[Item]
    manifests: dict[Key, Manifest]
    keys: frozenset[str]

    def to_do(self) -> list[Item]:
        """The items that are not fresh."""
        return [item for item in self.items if item.action != FRESH]

    def count(self, action: str) -> int:
        """How many items have this action."""
        return sum(item.action == action for item in self.items)

    def summary(self) -> str:
        """The last line of a plan, for grep."""
        return (
            f"Plan: {self.count(RUN)} to run, {self.count(RESTORE)} to restore, "
            f"{self.count(MAYBE)} maybe, {self.count(FRESH)} fresh."
        )


def plan(
    graph: Graph,
    targets: Iterable[str] = (),
    sight: Sight | None = None,
    *,
    bundles: bool = False,
) -> Plan:
    """What ``build`` would do for these domains and bundles, or for all domains; with ``bundles``
    for every bundle too. ``sight`` remembers what it looked at.

    Raises:
        ConfigError: a domain is unknown.
    """
    planner = _Planner(graph, sight or Sight(graph))
    for step in graph.above(graph.ends(targets, bundles=bundles)):
        planner.add(step)
    manifests = {key: manifest for key, manifest in planner.found.items() if manifest is not None}
    keys = frozenset(item.key for item in planner.items.values() if item.key)
    return Plan(planner.settle(), manifests, keys)


class _Planner:
    """Decides step after step; ``found`` is each step's manifest as it is, or for a temporary as it
    would be."""

    def __init__(self, graph: Graph, sight: Sight) -> None:
        self.graph, self.sight = graph, sight
        self.store = Store(graph.store, graph.root)
        self.items: dict[Key, Item] = {}
        self.found: dict[Key, Manifest | None] = {}
        self.readers: dict[Key, list[Key]] = {}
        self.digests: dict[Input, str] = {}

    def add(self, step: Step) -> None:
        """Decide a step; those it needs were added before."""
        key = (step.stage, step.target)
        for given in step.inputs.values():
            self.readers.setdefault((given.stage, given.target), []).append(key)
        self.items[key] = self._mark_kept(step) if step.keep else self._temporary(step)

    def settle(self) -> list[Item]:
        """All items; a temporary is only there where a step that is not fresh reads it."""
        return [
            item if item.step.keep else self._mark_needed(key, item)
            for key, item in self.items.items()
            if item.step.keep or self._read_by(key, {RUN, RESTORE, MAYBE})
        ]

    def _mark_needed(self, key: Key, item: Item) -> Item:
        """A temporary whose result is known is made again only for a reader that is worked out."""
        action = (
            RUN if self._read_by(key, {RUN}) else MAYBE if self._read_by(key, {MAYBE}) else RESTORE
        )
        if item.action == FRESH:
            readers = [self.items[reader] for reader in self.readers[key]]
            roots = dict.fromkeys(
                cause for reader in readers if reader.action != FRESH for cause in reader.roots()
            )
            return item._replace(
                action=action, causes=(Cause(TEMPORARY, ""),), inherited=tuple(roots)
            )
        return item._replace(action=RUN) if action == RUN else item

    def _read_by(self, key: Key, actions: set[str]) -> bool:
        return any(self.items[reader].action in actions for reader in self.readers.get(key, ()))

    def _mark_kept(self, step: Step) -> Item:
        manifest = self.sight.manifest(step)
        self.found[step.stage, step.target] = manifest
        causes = self._own(step, manifest)
        waits = self._waits(step)
        if waits:
            # Work of the same fingerprint may have been done before, from the inputs that the step
            # will turn out to have.
            sure = causes and not self.store.knows(step.fingerprint)
            return Item(
                step,
                RUN if sure else MAYBE,
                tuple(causes),
                self._list_inherited(step),
                tuple(waits),
            )
        inputs = self._inputs(step)
        inherited: tuple[Cause, ...] = ()
        before = manifest.inputs if manifest is not None else inputs
        if changed := [
            name for name in {**inputs, **before} if before.get(name) != inputs.get(name)
        ]:
            inherited = self._list_inherited(step)
            if not causes and not inherited:
                causes = [Cause(INPUT, self._describe_given(step, name)) for name in changed]
        key = _key(step, inputs)
        if not causes and not inherited:
            return Item(step, FRESH, key=key)
        known = self.store.look_up(key)
        if known is None or self.sight.is_damaged(self.store, known):
            return Item(step, RUN, tuple(causes), inherited, key=key)
        self.found[step.stage, step.target] = known
        return Item(step, RESTORE, tuple(causes), inherited, key=key)

    def _own(self, step: Step, manifest: Manifest | None) -> list[Cause]:
        """Why a step's artifact is not what its recipe, code, libraries and sources ask for."""
        causes = own_causes(self.graph, step, manifest)
        if manifest is None:
            return [manifest_drift(self.graph, step)] if self.sight.was_built(step) else causes
        return causes or drift_causes(self.graph, step, self.sight.faults(step, manifest))

    def _temporary(self, step: Step) -> Item:
        waits = self._waits(step)
        key = "" if waits else _key(step, self._inputs(step))
        known = self.store.recall(key) if key else None
        self.found[step.stage, step.target] = known
        if known is not None:
            return Item(step, FRESH, key=key)
        before = self.store.recall(self.store.read_reference(step.reference))
        causes = own_causes(self.graph, step, before)
        if causes and causes[0].kind == NEW and waits:
            causes = []
        return Item(
            step,
            MAYBE if waits else RUN,
            tuple(causes),
            self._list_inherited(step),
            tuple(waits),
            key,
        )

    def _waits(self, step: Step) -> list[str]:
        """Steps above whose results are not known; one of which nothing is read is only waited for,
        and changes nothing."""
        above = [
            self.items[given.stage, given.target] for given in step.inputs.values() if given.reads
        ]
        return sorted({item.step.name for item in above if item.action in (RUN, MAYBE)})

    def _list_inherited(self, step: Step) -> tuple[Cause, ...]:
        above = [
            self.items[given.stage, given.target] for given in step.inputs.values() if given.reads
        ]
        return tuple(
            dict.fromkeys(cause for item in above if item.action != FRESH for cause in item.roots())
        )

    def _inputs(self, step: Step) -> dict[str, str]:
        return {name: self._digest(given) for name, given in step.inputs.items() if given.reads}

    def _digest(self, given: Input) -> str:
        """The digest of what is read of an input; that of a base is asked for by every domain."""
        if given not in self.digests:
            manifest = self.found[given.stage, given.target]
            assert manifest is not None or not given.reads
            self.digests[given] = (
                manifest.digest(given.reads) if manifest is not None else digest_json({})
            )
        return self.digests[given]

    def _describe_given(self, step: Step, name: str) -> str:
        given = step.inputs.get(name)
        return self.graph.step(given.stage, given.target).name if given else f"{name}, before"


def _key(step: Step, inputs: Mapping[str, str]) -> str:
    return work_key(step.stage, step.target, step.fingerprint, inputs)
