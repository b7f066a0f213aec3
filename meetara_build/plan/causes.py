"""Why a step has something to do: which key, file, library or artifact is not what it was."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from meetara_build.context.differences import differences
from meetara_build.graph import Graph, Step
from meetara_build.graph.fingerprint import file_of
from meetara_build.outside import Json, show_short
from meetara_build.plan.provenance import origin
from meetara_build.store.manifest import MISSING, MadeFrom, Manifest, Slice, digest_json

NEW = "new"
ACCEPTED = "accepted"
"""The key of a package's recipe that ``accept`` writes."""
CONFIG, CODE, LIBRARY, SOURCE, INPUT = "config", "code", "library", "source", "input"
DRIFT = "drift"
TEMPORARY = "temporary"
ABOVE = "above"
"""Kinds of causes. ``drift``: an artifact was deleted, changed or damaged behind the tool's back;
``above``: a file names in its metadata the recipes of the stages before it, and one of these has
changed."""


Scalar = str | int | float | bool | None
"""What can be compared and counted."""


class Cause(NamedTuple):
    """One thing that is not as it was: a key or file below conf/, a module, a library, a source, an
    artifact.

    ``where`` is a file as seen from the project, a library, or a step; ``key`` the dotted key
    within the file.
    """

    kind: str
    where: str
    key: str = ""
    old: Scalar = None
    new: Scalar = None

    def text(self) -> str:
        """The cause in a line."""
        if self.kind == NEW:
            return "not built yet"
        if self.kind == TEMPORARY:
            return "temporary, and needed again"
        if self.kind == DRIFT:
            return f"{self.where}: {self.new}"
        if self.kind == INPUT:
            return f"{self.where}: its result is another"
        if self.kind == SOURCE:
            # A file may be called like a line of a plan.
            name = f"'{self.where}'" if " " in self.where else self.where
            return f"{name}: {_change_of_file(self.old, self.new)}"
        if self.kind == CODE:
            if not self.where.endswith(".py"):
                return f"{self.where}: made by another version of the tool"
            return f"{self.where}: {_change_of_file(self.old, self.new, 'code')}"
        if self.kind == ABOVE:
            return "the recipes of the stages before, which its metadata name"
        shown = f"{show_short(self.old, 40)} → {show_short(self.new, 40)}"
        return f"{self.where} {self.key}: {shown}".replace("  ", " ").replace(" : ", ": ")


def own_causes(graph: Graph, step: Step, manifest: Manifest | None) -> list[Cause]:
    """What a step's recipe, code, libraries and sources have that its artifact was not made
    from."""
    if manifest is None:
        return [Cause(NEW, "")]
    if manifest.fingerprint == step.fingerprint:
        return []
    # A fingerprint differs for a reason, known or not.
    return recipe_causes(graph, step, manifest.made_from) or [
        Cause(CODE, step.name, "", manifest.fingerprint, step.fingerprint)
    ]


def recipe_causes(graph: Graph, step: Step, old: MadeFrom) -> list[Cause]:
    """What differs between what a step is made from and what it was made from."""
    new = step.made_from
    found = list(_recipe_causes(graph, step, old.get("recipe", {}), new["recipe"]))
    for module, one, other in _list_changed(old.get("code", {}), new["code"]):
        found.append(Cause(CODE, file_of(module), "", one, other))
    for library, one, other in _list_changed(old.get("libraries", {}), new["libraries"]):
        found.append(Cause(LIBRARY, library, "", one, other))
    for name, one, other in _list_changed(old.get("sources", {}), new["sources"]):
        found.append(
            Cause(SOURCE, shorten_path(graph, step.sources.get(name, name)), "", one, other)
        )
    # A key of a recipe may come from where another does.
    return list(dict.fromkeys(found))


def drift_causes(graph: Graph, step: Step, faults: Mapping[str, str]) -> list[Cause]:
    """Files of an artifact that were deleted or changed behind the tool's back."""
    folder = shorten_path(graph, str(graph.root / step.place.folder))
    return [Cause(DRIFT, f"{folder}/{name}", "", None, fault) for name, fault in faults.items()]


def manifest_drift(graph: Graph, step: Step) -> Cause:
    """An artifact whose manifest alone was deleted, or is damaged."""
    return Cause(
        DRIFT, shorten_path(graph, str(graph.root / step.place.manifest)), "", None, MISSING
    )


def shorten_path(graph: Graph, path: str) -> str:
    """A path as seen from the project, with ``..`` in it only where a link makes that another
    place."""
    short = os.path.normpath(path)
    found = short if os.path.realpath(short) == os.path.realpath(path) else path
    return found.removeprefix(f"{graph.project}/")


def _recipe_causes(graph: Graph, step: Step, old: Slice, new: Slice) -> Iterator[Cause]:
    for path, one, other in differences(old, new):
        if _follows(path, old, new):
            continue
        if path[0] == ACCEPTED:  # figures that `accept` wrote, told as the file that they are
            texts = (
                recipe.get(ACCEPTED) and digest_json(recipe[ACCEPTED]) for recipe in (old, new)
            )
            yield Cause(SOURCE, f"conf/{ACCEPTED}/{step.target}.yaml", "", *texts)
            continue
        found = origin(graph, step, path)
        yield (
            Cause(ABOVE, "")
            if found is None
            else Cause(CONFIG, found.file, found.key, _plain(one), _plain(other))
        )


def _follows(path: Sequence[str], old: Slice, new: Slice) -> bool:
    """Whether a key only follows from another: what a type needs comes and goes with the type, the
    bounds of answers are those of the safety level, and their lists those of the languages."""
    other_types = old.get("quants") != new.get("quants")
    if path == ["imatrix"]:
        return other_types
    if path[0] == "harm":
        return old.get("safety") != new.get("safety")
    if path[0] == "lists" and len(path) > 1:
        return (path[1] in old.get("languages", ())) != (path[1] in new.get("languages", ()))
    asked_twice = all(path[-1] in recipe.get("quants", ()) for recipe in (old, new))
    return path[0] == "max_kl" and other_types and not asked_twice


def _list_changed(
    old: Mapping[str, str], new: Mapping[str, str]
) -> Iterable[tuple[str, str | None, str | None]]:
    return [
        (name, old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _change_of_file(old: Scalar, new: Scalar, what: str = "content") -> str:
    if old is None:
        return "new"
    return "no longer used" if new is None else f"its {what} changed"


def _plain(value: Json) -> Scalar:
    """A value that can be compared and counted: lists and mappings as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
