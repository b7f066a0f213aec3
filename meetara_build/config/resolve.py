"""conf/ and overlays → one frozen configuration for each domain, every key typed.

Precedence, low to high: ``build.yaml``, its base's file, its machine's, its own, its overlay, the
command line. ``layers`` reads the files, and ``compose`` has Hydra put them together.
"""

import copy
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

from meetara_build.config import compose, layers
from meetara_build.config.conf_files import list_group
from meetara_build.config.keys import is_within
from meetara_build.config.layers import (
    GROUPS,
    SECTIONS,
    SHAPES,
    Layer,
    drop,
    find_layer,
    leaves,
    locate,
    overlay_layer,
    put,
    read_build,
    read_member,
)
from meetara_build.config.overlay import overlay_path, read_overlay
from meetara_build.config.overrides import COMMAND_LINE, NO_OVERRIDES, Overrides
from meetara_build.config.schema import NAME, Base, Build, Decision, Domain, Hardware, Shape, check
from meetara_build.config.yaml_files import Content, Place, Value, look_up, read_text
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import quote_command, show_line
from meetara_build.project import CACHE
from meetara_build.store.manifest import digest_json
from meetara_build.store.memo import Memo

S = TypeVar("S", bound=Shape)

NAMED = (*GROUPS, "provider", "safety", "bundle", "domain")
"""Folders of conf/ whose files' names stand for something."""
OPEN_KEYS = re.compile(r"evaluation\.max_kl\.\w+|answers\.bounds\.(strict|standard)\.\w+")
"""Mappings whose keys a person may add to."""

WHOLE = ("training.topic_weights", "gguf.tensor_types")
"""Mappings that are set as one value: their keys are a person's own."""


FORM = [Path(module).read_text("utf-8") for module in (compose.__file__, layers.__file__)]
"""By which code something was composed and kept."""


class Change(NamedTuple):
    """A key that does not have build.yaml's value: where it is set, to what, by whom and why.

    ``path`` is a file as seen from the project, or "command line"; ``below`` is the value that the
    layer before gives.
    """

    key: str
    value: Value
    below: Value
    path: str
    agent: str | None
    reason: str | None


class Common(NamedTuple):
    """What domains on one base share: its model, and how it is made, whatever a single domain
    overrides."""

    base_name: str
    base: Base
    hardware: Hardware
    build: Build
    changes: list[Change]


class Resolved(NamedTuple):
    """One domain's whole configuration."""

    name: str
    domain: Domain
    base_name: str
    base: Base
    hardware_name: str
    hardware: Hardware
    build: Build
    changes: list[Change]


class Decided(NamedTuple):
    """A value of a composed configuration, and who decided it; no file for what the schema
    gives."""

    key: str
    value: Value
    file: str | None
    line: int | None
    agent: str | None
    reason: str | None


class Typed(NamedTuple):
    """A composed configuration with every key checked; without a domain it is what a base's own
    steps are made with."""

    build: Build
    base: Base
    hardware: Hardware
    domain: Domain | None


class Composed(NamedTuple):
    """A configuration, the layers that it is made of, low to high, and the member of each group
    that was chosen by one.

    ``under`` is what each kind of layer was laid over.
    """

    typed: Typed
    content: Content
    layers: list[Layer]
    chosen: dict[str, tuple[str, Layer | None]]
    under: dict[str, Content]


class Configuration:
    """Everything below a project's ``conf/``, read once.

    ``hardware`` is the machine of whoever runs the jobs, whatever a file says; ``overrides`` are
    the command line's, and a machine that they choose is another such.
    """

    def __init__(
        self, project: Path, hardware: str | None = None, overrides: Overrides = NO_OVERRIDES
    ) -> None:
        self.conf = project / "conf"
        self.path = self.conf / "build.yaml"
        self.overrides = overrides
        self.said = compose.Said(overrides.words) if overrides.words else None
        self.memo = Memo(project / CACHE / "composed.json", FORM)
        self.lowest = read_build(self.path, self.memo)
        compose.refuse_broken(self.lowest)
        self.defaults = dict(self.lowest.choices)
        self.machine: tuple[str, Layer | None] | None = (hardware, None) if hardware else None
        if self.said and "hardware" in self.said.layer.choices:
            self.machine = self.said.layer.choices["hardware"], self.said.layer
        if self.machine:
            self.defaults["hardware"] = self.machine[0]
        self.environment: set[str] = set()
        self.files = {group: list_named(self.conf, group) for group in NAMED}
        self.domains = self.files["domain"]
        self.build = self._compose_shared(self.defaults["base"]).typed.build
        self._refuse_unknown_locks(self.build.locked, self.lowest, ("locked",))
        for name, path in list_group(self.conf, "overlay").items():
            if name not in self.domains:
                raise ConfigError(
                    f"{path}: decides for an unknown domain{nearest(name, list(self.domains))}"
                )

    def list_selected(self) -> list[str]:
        """The domains that ``domains:`` of build.yaml names, by name or category.

        Raises:
            ConfigError: a name is neither a domain nor a category.
        """
        if self.build.domains == "all":
            return sorted(self.domains)
        categories = {name: self.resolve(name).domain.category for name in self.domains}
        chosen: set[str] = set()
        for word in self.build.domains:
            members = [name for name, category in categories.items() if word in (name, category)]
            if not members:
                known = [*self.domains, *set(categories.values())]
                raise ConfigError(
                    f"{self.path}: domains: unknown domain '{word}'{nearest(word, known)}"
                )
            chosen.update(members)
        return sorted(chosen)

    def resolve(self, name: str, proposed: Sequence[Decision] = ()) -> Resolved:
        """The whole configuration of a domain, every key checked and typed; as it would be with
        what is proposed, if anything is.

        Raises:
            ConfigError: with every fault, each with file, line and key.
        """
        return self._resolve(name) if not proposed else self._describe(name, proposed)

    @cache  # noqa: B019  (one short-lived object a command)
    def _resolve(self, name: str) -> Resolved:
        return self._describe(name, ())

    @cache  # noqa: B019
    def common(self, base_name: str) -> Common:
        """What the steps of a base itself are made with: an override in a domain's file is no
        matter of its neighbours."""
        found = self._compose_shared(base_name)
        typed = found.typed
        return Common(base_name, typed.base, typed.hardware, typed.build, self._changes(found, []))

    def explain(self, name: str) -> list[Decided]:
        """Every value of a domain's configuration, with the file and line that decided it."""
        found, decisions = self._compose(name, ())
        typed, why = found.typed, {decision.key: decision for decision in decisions}
        groups = {"base": typed.base, "hardware": typed.hardware, "domain": typed.domain}
        whole: Content = {
            **typed.build.model_dump(),
            **{group: one.model_dump() for group, one in groups.items() if one is not None},
        }
        lines = {layer.kind: layer.lines() for layer in found.layers}

        def decided(at: Place, value: Value, layer: Layer) -> Decided:
            known = lines[layer.kind]
            ends = [at[:end] for end in range(len(at), 0, -1) if at[:end] in known]
            decision = why.get(".".join(map(str, ends[0]))) if ends and layer.decisions else None
            return Decided(
                ".".join(map(str, at)),
                value,
                self._seen(layer),
                known[ends[0]] if ends else None,
                decision.agent if decision else None,
                decision.reason if decision else None,
            )

        told = [
            decided((group,), member, chooser or self.lowest)
            for group, (member, chooser) in found.chosen.items()
        ]
        for at, value in leaves(whole):
            layer, place = find_layer(found.layers, at)
            if place != at and any(isinstance(one, dict) for one in look_up(layer.content, place)):
                told.append(Decided(".".join(map(str, at)), value, None, None, None, None))
            else:
                told.append(decided(at, value, layer))
        return told

    @cache  # noqa: B019
    def keys(self) -> list[str]:
        """The dotted keys that a decision may set."""
        sections = self.build.model_dump(include=set(SECTIONS))
        return [*_list_dotted(sections), "domain.quants", "domain.sources", *GROUPS]

    def save(self) -> None:
        """Keep what was composed for the next time."""
        self.memo.save()

    def _describe(self, name: str, proposed: Sequence[Decision]) -> Resolved:
        found, decisions = self._compose(name, proposed)
        typed = found.typed
        assert typed.domain is not None
        return Resolved(
            name,
            typed.domain,
            found.chosen["base"][0],
            typed.base,
            found.chosen["hardware"][0],
            typed.hardware,
            typed.build,
            self._changes(found, decisions),
        )

    @cache  # noqa: B019
    def _compose_shared(self, base_name: str) -> Composed:
        """build.yaml, a base and the machine of the build: what no domain has a say in."""
        chosen: dict[str, tuple[str, Layer | None]] = {
            "base": (base_name, None),
            "hardware": self.machine or (self.defaults["hardware"], None),
        }
        base, hardware = self._members(chosen)
        stack = [self.lowest, base, hardware]
        pair = self._pair(base, hardware)
        content, used = compose.finish(pair, {}, None, stack)
        self.environment |= used
        under = {"base": self.lowest.content, "hardware": self.lowest.content}
        return Composed(self._check_types(content, stack), content, stack, chosen, under)

    def _compose(self, name: str, proposed: Sequence[Decision]) -> tuple[Composed, list[Decision]]:
        """A domain's layers put together, and the decisions in its overlay with those that are
        proposed."""
        if name not in self.domains:
            raise ConfigError(
                f"unknown domain '{name}'{nearest(name, list(self.domains))} Add it with "
                f"`{quote_command('meetara-build', 'add-domain', name, '--from', 'FILE')}`"
            )
        own = self._read("domain", name)
        keys = [decision.key for decision in proposed]
        kept = [one for one in read_overlay(self.conf, name) if one.key not in keys]
        decisions = [*kept, *proposed]
        overlay = overlay_layer(overlay_path(self.conf, name), decisions)
        self._refuse_unknown_decisions(overlay)
        said = self.said if self.said and self.overrides.reaches(name) else None
        upper = [own, overlay, *([said.layer] if said else [])]
        chosen: dict[str, tuple[str, Layer | None]] = {
            group: (self.lowest.choices[group], None) for group in GROUPS
        }
        for layer in upper:
            chosen |= {group: (member, layer) for group, member in layer.choices.items()}
        if self.machine:
            chosen["hardware"] = self.machine
        base, hardware = self._members(chosen)
        stack = [self.lowest, base, hardware, *upper]
        pair = self._pair(base, hardware)
        below = self._laid_over(pair, own, [base, hardware])
        decided = {one.key: one.value for one in decisions if one.key not in GROUPS}
        content, used = compose.finish(below, decided, said, stack)
        self.environment |= used
        typed = self._check_types(content, stack)
        assert typed.domain is not None
        self._refuse_unknown_locks(typed.domain.locked, own, ("domain", "locked"))
        _refuse_locked(decisions, [*self.build.locked, *typed.domain.locked], overlay)
        lowest = self.lowest.content
        under = {"base": lowest, "hardware": lowest, "domain": pair}
        under |= {"overlay": below, COMMAND_LINE: below}
        return Composed(typed, content, stack, chosen, under), decisions

    @cache  # noqa: B019
    def _read(self, group: str, name: str) -> Layer:
        layer = read_member(group, self.files[group][name], self.memo)
        compose.refuse_broken(layer)
        return layer

    def _members(self, chosen: Mapping[str, tuple[str, Layer | None]]) -> list[Layer]:
        """The files of the base and the machine that were chosen."""
        found = []
        for group in GROUPS:
            name, chooser = chosen[group]
            if name not in self.files[group]:
                where = (chooser or self.lowest).where((group,))
                raise ConfigError(
                    f"{where}: unknown {group} "
                    f"'{show_line(name)}'{nearest(name, list(self.files[group]))}"
                )
            found.append(self._read(group, name))
        return found

    def _pair(self, base: Layer, hardware: Layer) -> Content:
        """What Hydra composes for a base and a machine, once."""
        parts = [self.lowest, base, hardware]

        def make() -> Content:
            names = [Path(layer.name).stem for layer in (base, hardware)]
            try:
                composed = compose.compose_pair(self.conf, *names)
            except ConfigError:  # the schema may know more exactly what it is, and where
                joined = functools.reduce(compose.join, [layer.content for layer in parts])
                self._check_types(joined, parts)
                raise
            if any(read_text(Path(layer.name)) != layer.text for layer in parts):
                raise ConfigError(f"{self.conf}: changed while it was read; run the command again")
            return composed

        found: Content = self.memo.get(digest_json([layer.text for layer in parts]), make)
        return found

    def _laid_over(self, pair: Content, own: Layer, others: Sequence[Layer]) -> Content:
        """A domain's file over what it shares with others; what cannot stand in it is left out, and
        a fault."""

        def make() -> Content:
            content = copy.deepcopy(own.content)
            for at in own.faults:
                drop(content, at)
            return compose.lay_over(pair, content)

        texts = [layer.text for layer in (self.lowest, *others, own)]
        found: Content = self.memo.get(digest_json(texts), make)
        return found

    def _check_types(self, content: Content, stack: Sequence[Layer]) -> Typed:
        """A composed configuration in its shapes; with every fault of its layers where there are
        any."""
        faults = {at: fault for layer in stack for at, fault in layer.faults.items()}
        content = copy.deepcopy(content) if faults else dict(content)
        for at in faults:
            if at[0] not in SHAPES or len(at) > 1:
                drop(content, at)
                for value in look_up(self.lowest.content, at):
                    put(content, at, value)
        parts = {group: content.pop(group, {}) for group in SHAPES}
        said = list(faults.values())

        def typed(shape: type[S], part: Value, *above: str, first: Layer | None = None) -> S | None:
            def where(at: Place) -> tuple[str, str]:
                whole = (*above, *at)
                return locate([first] if first and first.has(whole) else stack, whole)

            try:
                return check(shape, part, self.path, where)
            except ConfigError as error:
                said.extend(str(error).splitlines())
                return None

        build = typed(Build, content)
        base, hardware = (
            typed(Base, parts["base"], "base"),
            typed(Hardware, parts["hardware"], "hardware"),
        )
        own = next((layer for layer in stack if layer.kind == "domain"), None)
        domain = typed(Domain, parts["domain"], "domain") if own else None
        if own is None:
            typed(Build, _unmask(self.lowest, content), first=self.lowest)
        elif any(layer.has(("domain",)) for layer in stack[stack.index(own) + 1 :]):
            alone = _unmask(own, {"domain": parts["domain"]})["domain"]
            typed(Domain, alone, "domain", first=own)
        if said or build is None or base is None or hardware is None:
            raise ConfigError("\n".join(dict.fromkeys(said)))
        return Typed(build, base, hardware, domain)

    def _changes(self, found: Composed, decisions: Iterable[Decision]) -> list[Change]:
        """The keys that a layer above build.yaml sets, each once, by the last that does."""
        why = {decision.key: decision for decision in decisions}
        changes: dict[Place, Change] = {}
        for layer in found.layers[1:]:
            for at in self._set_by(layer):
                under = [changes[at].value] if at in changes else []
                under += look_up(found.under[layer.kind], at) or look_up(self._given, at)
                key = ".".join(map(str, at))
                decision = why.get(key) if layer.decisions else None
                changes[at] = Change(
                    key,
                    next(iter(look_up(layer.content, at)), None),
                    under[0] if under else None,
                    self._seen(layer),
                    decision.agent if decision else None,
                    decision.reason if decision else None,
                )
        told = [
            change._replace(value=next(iter(look_up(found.content, at)), None))
            for at, change in changes.items()
        ]
        for group, (member, chooser) in found.chosen.items():
            if chooser is not None:
                decision = why.get(group) if chooser.decisions else None
                agent, reason = (decision.agent, decision.reason) if decision else (None, None)
                default = self.lowest.choices[group]
                told.append(Change(group, member, default, self._seen(chooser), agent, reason))
        return sorted(told, key=lambda change: change.key)

    @cached_property
    def _given(self) -> Content:
        """What the build has for every key, the schema's own values too."""
        return self.build.model_dump()

    def _set_by(self, layer: Layer) -> Iterator[Place]:
        """The keys that a layer sets besides its own."""
        if layer.kind == COMMAND_LINE:
            yield from (tuple(key.split(".")) for key in (self.said.keys() if self.said else ()))
        elif layer.kind == "overlay":
            keys = [one.key for one in layer.decisions if one.key not in GROUPS]
            yield from (tuple(key.split(".")) for key in keys)
        else:
            yield from (at for at, _ in leaves(layer.content) if at[0] != layer.kind)

    def _seen(self, layer: Layer) -> str:
        """A layer's file as seen from the project."""
        if layer.kind == COMMAND_LINE:
            return COMMAND_LINE
        return str(Path(layer.name).relative_to(self.conf.parent))

    def _refuse_unknown_decisions(self, overlay: Layer) -> None:
        for one in overlay.decisions:
            if one.key not in self.keys() and not OPEN_KEYS.fullmatch(one.key):
                where = overlay.where(tuple(one.key.split(".")))
                raise ConfigError(
                    f"{where}: unknown key '{show_line(one.key)}'{nearest(one.key, self.keys())}"
                )

    def _refuse_unknown_locks(self, locked: Iterable[str], layer: Layer, at: Place) -> None:
        """A lock with a typo would protect nothing."""
        for lock in locked:
            if not any(key == lock or key.startswith(f"{lock}.") for key in self.keys()):
                raise ConfigError(
                    f"{layer.where(at)}: locked: unknown key "
                    f"'{show_line(lock)}'{nearest(lock, self.keys())}"
                )


def _unmask(layer: Layer, content: Content) -> Content:
    """A composed configuration with a layer's own values on top: a wrong one is a fault, whatever
    another layer sets there."""
    own = copy.deepcopy(layer.content)
    for at in (*layer.faults, *(at for at, _ in compose.find_unresolved(layer.content))):
        lists = [number for number, part in enumerate(at) if isinstance(part, int)]
        drop(own, at[: lists[0]] if lists else at)
    return compose.join(content, own)


def list_named(conf: Path, group: str) -> dict[str, Path]:
    """The files of a group by their names.

    Raises:
        ConfigError: one of them is called what folders, rules or reports cannot be called.
    """
    found = list_group(conf, group)
    for name, path in found.items():
        check_name(group, name, f"{show_line(path)}: ")
    return found


def check_name(group: str, name: str, where: str = "") -> None:
    """Refuse a name that a file of a group cannot have; ``where`` begins the message.

    Raises:
        ConfigError: it has other letters, or is too long.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{where}'{show_line(name)}' cannot name a {group}; use lower-case letters, digits and "
            f"_, such as 'my_{group}', 64 at most"
        )


def _refuse_locked(decisions: Iterable[Decision], locked: Iterable[str], overlay: Layer) -> None:
    fixed = list(locked)
    for decision in decisions:
        for lock in fixed:
            if is_within(decision.key, [lock]):
                raise ConfigError(
                    f"{overlay.name}: '{decision.key}' is locked; remove the decision, or the lock "
                    f"'{lock}'"
                )


def _list_dotted(content: Mapping[str, Value], above: str = "") -> list[str]:
    keys = []
    for key, value in content.items():
        name = f"{above}{key}"
        keys += (
            _list_dotted(value, f"{name}.")
            if isinstance(value, dict) and name not in WHOLE
            else [name]
        )
    return keys
