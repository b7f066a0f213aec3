"""conf/ and overlays → one frozen recipe for each domain and stage. The only importer of Hydra.

Precedence, low to high: ``build.yaml``, the ``overrides:`` of the base, of the machine and of the domain, the domain's overlay,
the machine named on the command line.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from meetara_build.config.conf_files import list_group
from meetara_build.config.keys import is_within
from meetara_build.config.overlay import overlay_path, read_overlay
from meetara_build.config.schema import NAME, Base, Build, Decision, Domain, Hardware, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import quote_command, show_line
from meetara_build.project import CACHE
from meetara_build.store.memo import Memo

M = TypeVar("M", Base, Hardware)

GROUPS = ("base", "hardware")
NAMED = (*GROUPS, "provider", "domain")
"""Folders of conf/ whose files' names stand for something."""
OPEN_KEYS = re.compile(r"evaluation\.max_kl\.\w+")
"""Mappings whose keys a person may add to."""

WHOLE = ("training.topic_weights", "gguf.tensor_types")
"""Mappings that are set as one value: their keys are a person's own."""


class Change(NamedTuple):
    """A key that does not have build.yaml's value: where it is set, to what, by whom and why.

    ``below`` is the value that the last file before this one gives it.
    """

    key: str
    value: Any
    below: Any
    path: str
    agent: str | None
    reason: str | None


class Common(NamedTuple):
    """What domains on one base share: its model, and how it is made, whatever a single domain overrides."""

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


class Configuration:
    """Everything below a project's ``conf/``, read once."""

    def __init__(self, project: Path, hardware: str | None = None) -> None:
        self.conf = project / "conf"
        self.path = self.conf / "build.yaml"
        content = read_yaml(self.path)
        self.defaults = _defaults(content.pop("defaults", []), self.path)
        self.build = check(Build, content, self.path)
        self.hardware = hardware
        if hardware:
            self.defaults["hardware"] = hardware
        chosen = [self.conf / group / f"{self.defaults[group]}.yaml" for group in GROUPS]
        texts = [
            file.read_bytes().decode(errors="replace")
            for file in (self.path, *chosen)
            if file.exists()
        ]
        self.memo = Memo(project / CACHE / "composed.json", [self.defaults, *texts])
        self.files = {group: list_named(self.conf, group) for group in NAMED}
        self.domains = self.files["domain"]
        self._refuse_unknown_locks(self.build.locked, self.path)
        for name, path in list_group(self.conf, "overlay").items():
            if name not in self.domains:
                raise ConfigError(
                    f"{path}: decides for an unknown domain{nearest(name, list(self.domains))}"
                )

    def selected(self) -> list[str]:
        """The domains that ``domains:`` of build.yaml names, by name or category.

        Raises:
            ConfigError: a name is neither a domain nor a category.
        """
        if self.build.domains == "all":
            return sorted(self.domains)
        categories = {name: self.domain(name).category for name in self.domains}
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

    @cache  # noqa: B019  (one short-lived object a command)
    def domain(self, name: str) -> Domain:
        """A domain's file."""
        if name not in self.domains:
            raise ConfigError(
                f"unknown domain '{name}'{nearest(name, list(self.domains))} "
                f"Add it with `{quote_command('meetara-build', 'add-domain', name, '--from', 'FILE')}`"
            )
        found = check(Domain, read_yaml(self.domains[name]), self.domains[name])
        self._refuse_unknown_locks(found.locked, self.domains[name])
        return found

    @cache  # noqa: B019
    def base(self, name: str, asked_by: Path) -> Base:
        """A base model's file; ``asked_by`` is the file that names it."""
        return self._member("base", name, asked_by, Base)

    @cache  # noqa: B019
    def machine(self, name: str, asked_by: Path) -> Hardware:
        """A machine's file."""
        return self._member("hardware", name, asked_by, Hardware)

    def resolve(self, name: str, proposed: Sequence[Decision] = ()) -> Resolved:
        """The whole configuration of a domain, every key checked and typed; as it would be with what is proposed, if anything is."""
        domain = self.domain(name)
        layers = [(self.domains[name], domain.overrides)]
        keys = [decision.key for decision in proposed]
        decisions = [one for one in read_overlay(self.conf, name) if one.key not in keys] + list(
            proposed
        )
        overlay = overlay_path(self.conf, name)
        _refuse_locked(decisions, [*self.build.locked, *domain.locked], overlay)
        layers.append((overlay, {decision.key: decision.value for decision in decisions}))
        chosen = {
            group: _chosen(group, self.defaults[group], self.path, layers) for group in GROUPS
        }
        if self.hardware:
            chosen["hardware"] = (self.hardware, self.path)
        base, machine = self.base(*chosen["base"]), self.machine(*chosen["hardware"])
        layers = [
            (self.conf / "base" / f"{chosen['base'][0]}.yaml", base.overrides),
            (self.conf / "hardware" / f"{chosen['hardware'][0]}.yaml", machine.overrides),
            *layers,
        ]
        values, origin, below = self._overrides(layers)
        below |= {
            key: getattr(domain, key.removeprefix("domain."))
            for key in values
            if key.startswith("domain.")
        }
        changes = self._changes(values, origin, below, decisions)
        own = {
            key.removeprefix("domain."): values.pop(key)
            for key in list(values)
            if key.startswith("domain.")
        }
        if own:
            where = {key: origin[f"domain.{key}"] for key in own}
            domain = check(
                Domain, {**domain.model_dump(exclude_unset=True), **own}, self.domains[name], where
            )
        build = self._composed(values, origin)
        files = {group: path for group, (_, path) in chosen.items() if path != self.path}
        choices = {group: chosen[group][0] for group in files}
        changes += self._changes(choices, files, self.defaults, decisions)
        return Resolved(
            name, domain, chosen["base"][0], base, chosen["hardware"][0], machine, build, changes
        )

    @cache  # noqa: B019
    def common(self, base_name: str) -> Common:
        """What the steps of a base itself are made with: an override in a domain's file is no matter of its neighbours."""
        base, machine = (
            self.base(base_name, self.path),
            self.machine(self.defaults["hardware"], self.path),
        )
        layers = [
            (self.conf / "base" / f"{base_name}.yaml", base.overrides),
            (self.conf / "hardware" / f"{self.defaults['hardware']}.yaml", machine.overrides),
        ]
        values, origin, below = self._overrides(layers)
        kept = {key: value for key, value in values.items() if not key.startswith("domain.")}
        build = self._composed(kept, origin)
        return Common(base_name, base, machine, build, self._changes(kept, origin, below, []))

    def _changes(
        self,
        values: Mapping[str, Any],
        origin: Mapping[str, Path],
        below: Mapping[str, Any],
        decisions: Iterable[Decision],
    ) -> list[Change]:
        why = {decision.key: decision for decision in decisions}
        return [
            Change(
                key,
                value,
                below[key],
                str(origin[key].relative_to(self.conf.parent)),
                why[key].agent if key in why else None,
                why[key].reason if key in why else None,
            )
            for key, value in sorted(values.items())
        ]

    def _member(self, group: str, name: str, asked_by: Path, shape: type[M]) -> M:
        if name not in self.files[group]:
            raise ConfigError(
                f"{asked_by}: unknown {group} '{name}'{nearest(name, list(self.files[group]))}"
            )
        path = self.files[group][name]
        found = check(shape, read_yaml(path), path)
        for key in GROUPS:
            if key in found.overrides:
                raise ConfigError(
                    f"{path}: overrides: '{key}' is not chosen here; choose it in the defaults of conf/build.yaml, or in a domain's "
                    "overrides"
                )
        return found

    def _overrides(
        self, layers: Iterable[tuple[Path, Mapping[str, Any]]]
    ) -> tuple[dict[str, Any], dict[str, Path], dict[str, Any]]:
        """Values by key, the last layer's winning, the file each came from, and the value below it; group choices left out."""
        values: dict[str, Any] = {}
        origin: dict[str, Path] = {}
        below: dict[str, Any] = {}
        for path, layer in layers:
            for key, value in layer.items():
                if key in GROUPS:
                    continue
                if key not in self.keys() and not OPEN_KEYS.fullmatch(key):
                    raise ConfigError(
                        f"{path}: overrides: unknown key '{key}'{nearest(key, self.keys())}"
                    )
                below[key] = values[key] if key in values else self._default(key)
                values[key], origin[key] = value, path
        return values, origin, below

    def _default(self, key: str) -> Any:
        """What build.yaml gives a key."""
        value: Any = self.build.model_dump()
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def _refuse_unknown_locks(self, locked: Iterable[str], path: Path) -> None:
        """A lock with a typo would protect nothing."""
        for lock in locked:
            if not any(is_within(key, [lock]) for key in self.keys()):
                raise ConfigError(
                    f"{path}: locked: unknown key '{lock}'{nearest(lock, self.keys())}"
                )

    @cache  # noqa: B019
    def keys(self) -> list[str]:
        """The dotted keys that an override may set."""
        sections = self.build.model_dump(
            exclude={"domains", "root", "store", "context", "agents", "tuning", "locked"}
        )
        return [*_dotted(sections), "domain.quants", "domain.sources", *GROUPS]

    def save(self) -> None:
        """Keep what was composed for the next time."""
        self.memo.save()

    def _compose(self) -> dict[str, Any]:
        from hydra import compose, initialize_config_dir
        from omegaconf import OmegaConf

        with initialize_config_dir(str(self.conf.resolve()), version_base="1.3"):
            composed = compose(
                "build", overrides=[f"{group}={self.defaults[group]}" for group in GROUPS]
            )
        content = OmegaConf.to_container(composed)
        assert isinstance(content, dict)
        return {str(key): value for key, value in content.items() if key not in GROUPS}

    def _composed(self, values: Mapping[str, Any], origin: Mapping[str, Path]) -> Build:
        """What Hydra composes, once, with these values in the place of its own: their keys are known, their types are not."""
        content = copy.deepcopy(self.memo.get("build", self._compose))
        for key, value in values.items():
            *above, last = key.split(".")
            place = content
            for part in above:
                place = place[part]
            place[last] = value
        return check(Build, content, self.path, origin)


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
            f"{where}'{show_line(name)}' cannot name a {group}; use lower-case letters, digits and _, such as 'my_{group}', "
            f"64 at most"
        )


def _defaults(entries: Any, path: Path) -> dict[str, str]:
    """Which base and which machine build.yaml's defaults list names."""
    chosen: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            chosen.update({str(key): str(value) for key, value in entry.items()})
    for group in chosen:
        if group not in GROUPS:
            raise ConfigError(f"{path}: defaults: unknown group '{group}'{nearest(group, GROUPS)}")
    for group in GROUPS:
        if group not in chosen:
            raise ConfigError(f"{path}: defaults: no {group} is chosen; add `- {group}: NAME`")
    return chosen


def _chosen(
    group: str, default: str, path: Path, layers: Iterable[tuple[Path, Mapping[str, Any]]]
) -> tuple[str, Path]:
    choice = (default, path)
    for file, layer in layers:
        if group in layer:
            choice = (str(layer[group]), file)
    return choice


def _refuse_locked(decisions: Iterable[Decision], locked: Iterable[str], path: Path) -> None:
    fixed = list(locked)
    for decision in decisions:
        for lock in fixed:
            if is_within(decision.key, [lock]):
                raise ConfigError(
                    f"{path}: '{decision.key}' is locked; remove the decision, or the lock '{lock}'"
                )


def _dotted(content: Mapping[str, Any], above: str = "") -> list[str]:
    keys = []
    for key, value in content.items():
        name = f"{above}{key}"
        keys += (
            _dotted(value, f"{name}.") if isinstance(value, dict) and name not in WHOLE else [name]
        )
    return keys
