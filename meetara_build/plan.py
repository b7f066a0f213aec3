"""What a build will do and why, from the graph and the manifests that are there; reads only."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.artifact import Manifest, Store, read_manifest, work_key
from meetara_build.errors import ArtifactError
from meetara_build.graph import Graph, Step

RUN, RESTORE, MAYBE, FRESH = "RUN", "RESTORE", "MAYBE", "FRESH"


class Item(NamedTuple):
    """One step of a plan.

    ``RUN`` it will be worked out, ``RESTORE`` the store has its bytes, ``MAYBE`` only if an input turns out different.
    """

    step: Step
    action: str
    reasons: list[str]


class Plan(NamedTuple):
    """The steps of a build, each after those it needs."""

    items: list[Item]

    def to_do(self) -> list[Item]:
        """The items that are not fresh."""
        return [item for item in self.items if item.action != FRESH]

    def count(self, action: str) -> int:
        """How many items have this action."""
        return sum(item.action == action for item in self.items)

    def summary(self) -> str:
        """The last line of a plan, for grep."""
        return f"Plan: {self.count(RUN)} to run, {self.count(RESTORE)} to restore, {self.count(MAYBE)} maybe, {self.count(FRESH)} fresh."


def plan(graph: Graph, domains: Iterable[str] = ()) -> Plan:
    """What ``build`` would do for these domains, or for all.

    Raises:
        ConfigError: a domain is unknown.
    """
    planner = _Planner(graph)
    for step in graph.above(graph.ends(domains)):
        planner.add(step)
    return Plan(planner.settled())


class _Planner:
    """Decides step after step; ``found`` is each step's manifest as it is, or for a temporary as it would be."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.store = Store(graph.root / "store")
        self.items: dict[tuple[str, str], Item] = {}
        self.found: dict[tuple[str, str], Manifest | None] = {}

    def add(self, step: Step) -> None:
        """Decide a step; those it needs were added before."""
        self.items[step.stage, step.target] = self._temporary(step) if not step.keep else self._kept(step)

    def settled(self) -> list[Item]:
        """All items; a temporary is only there, and then always to run, where a step that is not fresh reads it."""
        return [
            item if item.step.keep else self._needed(item)
            for key, item in self.items.items()
            if item.step.keep or self._readers(key, {RUN, RESTORE, MAYBE})
        ]

    def _needed(self, item: Item) -> Item:
        """A temporary that is gone runs with whatever reads it."""
        if item.action == FRESH or self._readers((item.step.stage, item.step.target), {RUN}):
            return item._replace(
                action=RUN, reasons=["temporary, and needed again"] if item.action == FRESH else item.reasons
            )
        return item

    def _readers(self, key: tuple[str, str], actions: set[str]) -> bool:
        return any(
            (given.stage, given.target) == key
            for item in self.items.values()
            if item.action in actions
            for given in item.step.inputs.values()
        )

    def _kept(self, step: Step) -> Item:
        manifest = _manifest(self.graph.root, step)
        self.found[step.stage, step.target] = manifest
        own = _own_reasons(self.graph.root, step, manifest)
        waiting = self._waiting(step)
        if waiting:
            return Item(step, RUN if own else MAYBE, own or [f"input {name} may change" for name in waiting])
        inputs = self._inputs(step)
        if not own and manifest is not None:
            own = [f"input {name} changed" for name in inputs if manifest.inputs.get(name) != inputs[name]]
        if not own:
            return Item(step, FRESH, [])
        return Item(step, RESTORE if self.store.look_up(self._key(step, inputs)) else RUN, own)

    def _temporary(self, step: Step) -> Item:
        waiting = self._waiting(step)
        known = None if waiting else self.store.recall(self._key(step, self._inputs(step)))
        self.found[step.stage, step.target] = known
        if known is not None:
            return Item(step, FRESH, [])
        return Item(
            step, MAYBE if waiting else RUN, [f"input {name} may change" for name in waiting] or ["not built yet"]
        )

    def _waiting(self, step: Step) -> list[str]:
        above = [self.items[given.stage, given.target] for given in step.inputs.values()]
        return sorted({item.step.name for item in above if item.action in (RUN, MAYBE)})

    def _inputs(self, step: Step) -> dict[str, str]:
        digests = {}
        for name, given in step.inputs.items():
            manifest = self.found[given.stage, given.target]
            item = self.items[given.stage, given.target]
            if item.action == RESTORE:
                manifest = self.store.look_up(self._key(item.step, self._inputs(item.step)))
            assert manifest is not None
            digests[name] = manifest.digest(given.reads)
        return digests

    @staticmethod
    def _key(step: Step, inputs: Mapping[str, str]) -> str:
        return work_key(step.stage, step.target, step.fingerprint, inputs)


def _own_reasons(root: Path, step: Step, manifest: Manifest | None) -> list[str]:
    """Why a step's artifact is not what its recipe, code, libraries and sources ask for."""
    if manifest is None:
        return ["not built yet"] if step.keep else []
    if manifest.fingerprint != step.fingerprint:
        return differences(manifest.made_from, step.made_from)
    return _drift(root, step, manifest)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> list[str]:
    """``training.epochs: 3 → 6`` for each changed key of two nested mappings."""
    lines = []
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += differences(one, other, f"{above}{key}.")
        elif one != other:
            lines.append(f"{above}{key}: {_short(one)} → {_short(other)}")
    return lines


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _drift(root: Path, step: Step, manifest: Manifest) -> list[str]:
    """Files that were deleted or resized behind the tool's back."""
    folder, found = root / step.place.folder, []
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            if path.stat().st_size != entry["size"]:
                found.append(f"{name} was changed by someone else")
        except FileNotFoundError:
            found.append(f"{name} is missing")
    return found


def _manifest(root: Path, step: Step) -> Manifest | None:
    try:
        return read_manifest(root / step.place.manifest)
    except ArtifactError:
        return None
