"""Recipes from the configuration: each field of the key that its stage's row names."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from meetara_build.config.auto_precision import resolve_precision
from meetara_build.config.bundles import Bundled
from meetara_build.config.resolve import Common, Resolved
from meetara_build.config.schema import AnswerBounds, GgufFile, Source, Training
from meetara_build.graph.stages import LORA, Each, Fields, Key, Stage
from meetara_build.llama_cpp.quants import CONVERTED, needs_imatrix
from meetara_build.setup.originals import Original
from meetara_build.stages.recipes.accepted import Accepted
from meetara_build.stages.recipes.adapter import TrainingRecipe
from meetara_build.stages.recipes.answers import AnswersRecipe
from meetara_build.stages.recipes.base import Pretraining
from meetara_build.stages.recipes.preparation import SourceRecipe
from meetara_build.stages.recipes.safety import SafetyLists
from meetara_build.stages.types import Recipe
from meetara_build.store.manifest import Slice, digest_json

ABOVE = ("base", "start", "dataset", "adapter")
"""The stages whose recipes a GGUF file names, as one digest, in its metadata."""
IN_SCOPE = ("safety", "accepted")
"""Folders of conf/ that no key of a domain or a base names: what is in their files is in the scope."""


class Reviewed(NamedTuple):
    """What people reviewed: by language the lists that answers are held to, and by domain the builds
    that they accepted."""

    lists: Mapping[str, SafetyLists] = {}
    accepted: Mapping[str, Accepted] = {}


class Scope(NamedTuple):
    """What a recipe is made from: a base's, domain's or bundle's configuration, those of the domains
    that it has a value for each of, the recipes of the stages before, as JSON, and what people
    reviewed."""

    item: Common | Resolved | Bundled
    each: Mapping[str, Resolved] = {}
    above: Mapping[str, Slice] = {}
    reviewed: Reviewed = Reviewed()


def make_recipe(row: Stage, scope: Scope) -> Recipe:
    """The recipe of a stage."""
    return row.load_model().model_validate(_values(row.fields, scope))


def _values(fields: Fields, scope: Scope) -> Slice:
    return {name: _value(field, scope) for name, field in fields.items()}


def _value(field: Key | Each, scope: Scope) -> Any:
    if isinstance(field, Key):
        found = _look_up(field.key, scope.item)
        return MAKERS[field.by](found, scope) if field.by else _plain(found)
    within = {name: Scope(item) for name, item in sorted(scope.each.items())}
    if isinstance(field.of, Key):
        values = {name: _value(field.of, one) for name, one in within.items()}
        return {name: value for name, value in values.items() if value}
    return {name: _values(field.of, one) for name, one in within.items()}


def _look_up(key: str, item: Common | Resolved | Bundled) -> Any:
    """The value of a key; a file's kind alone is its name. A part of what is not there is None, and
    so is what the scope has."""
    if key == "domain":
        assert isinstance(item, Resolved)
        return item.name
    if key == "bundle":
        assert isinstance(item, Bundled)
        return item.name
    if key in ("base", "build.base"):
        return item.base_name
    found: Any = item if key not in IN_SCOPE else None
    for part in key.split(".") if key else ():
        found = getattr(found, part) if found is not None else None
    return found


def _plain(value: Any) -> Any:
    """A part of the configuration as JSON values."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


# What makes a field of a key's value, by the name that the table has for it


def source_recipe(source: Source) -> SourceRecipe:
    """A source as the dataset stage reads it."""
    return SourceRecipe(
        name=(source.path or source.hub or "").rstrip("/").rpartition("/")[2],
        format="hub" if source.hub else source.format,
        **source.model_dump(exclude={"path", "format"}),
    )


def original(file: GgufFile) -> Original:
    """Which GGUF file a base is taken back from, and what pins it; one that is named by its path is
    pinned by its content."""
    if file.path is not None:
        return Original(file.path.rpartition("/")[2])
    assert file.file is not None
    return Original(file.file, file.package, file.hub_id, file.revision, file.sha256)


def uses_imatrix(item: Resolved) -> bool:
    """Whether any of a domain's files is quantized by an importance matrix."""
    settings, quants = item.build.gguf, item.domain.quants
    return (
        settings.files != LORA
        and settings.imatrix.enabled
        and needs_imatrix(quants, settings.tensor_types.values())
    )


def uses_base_imatrix(item: Common | Resolved | Bundled) -> bool:
    """Whether any of a base's own files is quantized by an importance matrix."""
    settings, quants = item.build.gguf, item.base.quants
    return settings.imatrix.enabled and needs_imatrix(quants, settings.tensor_types.values())


def _find_used_imatrix(_: bool, scope: Scope) -> bool:
    assert isinstance(scope.item, Resolved)
    return uses_imatrix(scope.item)


def _find_used_tensor_types(types: dict[str, str], scope: Scope) -> dict[str, str]:
    return types if any(quant not in CONVERTED for quant in _own_quants(scope)) else {}


def _own_quants(scope: Scope) -> list[str]:
    """The types of a domain's own files."""
    return [] if scope.item.build.gguf.files == LORA else _quants(scope)


def _quants(scope: Scope) -> list[str]:
    assert isinstance(scope.item, Resolved)
    return scope.item.domain.quants


def _training(training: Training, _: Scope) -> Slice:
    known = {**training.model_dump(), "joint": sorted(set(training.joint))}
    known["observers"] = sorted(set(training.observers))
    known["warm_start"] = (training.warm_start or "").partition("@")[2] or None
    return {name: known[name] for name in TrainingRecipe.model_fields}


def _members(_: Any, scope: Scope) -> list[str]:
    """The domains of a bundle, whichever way it names them."""
    assert isinstance(scope.item, Bundled)
    return scope.item.domains


def _bundle_quants(_: Any, scope: Scope) -> list[str]:
    assert isinstance(scope.item, Bundled)
    return scope.item.quants


def _find_own_level(bounds: AnswerBounds, scope: Scope) -> dict[str, float]:
    """The bounds of a domain's safety level."""
    assert isinstance(scope.item, Resolved)
    found: dict[str, float] = getattr(bounds, scope.item.domain.safety)
    return found


def _find_own_lists(_: None, scope: Scope) -> dict[str, Slice]:
    """What answers in a domain's languages are held to."""
    assert isinstance(scope.item, Resolved)
    spoken = scope.item.domain.languages
    return {
        code: lists.model_dump() for code, lists in scope.reviewed.lists.items() if code in spoken
    }


def _find_accepted(_: None, scope: Scope) -> Accepted | None:
    assert isinstance(scope.item, Resolved)
    return scope.reviewed.accepted.get(scope.item.name)


def _pretraining(pretraining: BaseModel | None, _: Scope) -> Slice | None:
    known = {*Pretraining.model_fields}
    return None if pretraining is None else pretraining.model_dump(include=known)


def _where_fetched(value: str | None, scope: Scope) -> str | None:
    return None if scope.item.base.folder else value


def _base_origin(hub_id: str | None, scope: Scope) -> str:
    return hub_id or ("made by this build" if scope.item.base.made_here else "a local folder")


MAKERS: dict[str, Callable[[Any, Scope], Any]] = {
    "source_recipes": lambda sources, _: [*map(source_recipe, sources)],
    "pinned_file": lambda file, _: file and original(file),
    "precision": lambda said, _: resolve_precision(said),
    "where_made_here": lambda value, scope: value if scope.item.base.made_here else None,
    "where_fetched": _where_fetched,
    "pretraining": _pretraining,
    "training": _training,
    "sorted_set": lambda values, _: sorted(set(values)),
    "own_level": _find_own_level,
    "safety_lists": _find_own_lists,
    "accepted": _find_accepted,
    "asked": lambda answers, _: answers.model_dump(include={*AnswersRecipe.model_fields}),
    "digest_above": lambda _, scope: digest_json(
        {name: scope.above[name] for name in ABOVE if name in scope.above}
    ),
    "used_imatrix": _find_used_imatrix,
    "base_imatrix": lambda _, scope: uses_base_imatrix(scope.item),
    "own_quants": lambda _, scope: _own_quants(scope),
    "on_base": lambda files, _: files == LORA,
    "floats": lambda quants, _: sorted({*quants} & {*CONVERTED} - {"F16"}),
    "used_tensor_types": _find_used_tensor_types,
    "base_origin": _base_origin,
    "used_bounds": lambda bounds, scope: {
        quant: bound for quant, bound in bounds.items() if quant in _quants(scope)
    },
    "members": _members,
    "bundle_quants": _bundle_quants,
    "teacher": lambda pin, _: pin and pin.partition("@")[0],
}
