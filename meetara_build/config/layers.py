"""The layers of a configuration, low to high: build.yaml, base, machine, domain, overlay, command
line.

Each knows its keys at their places in the composed configuration, and the line where each stands. A
file of ``conf/base``, ``conf/hardware`` or ``conf/domain`` has its own keys alone, or begins with
``# @package _global_``: then its own keys stand below ``base:``, ``hardware:`` or ``domain:``,
beside any of build.yaml's, as Hydra has it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meetara_build.config.overrides import COMMAND_LINE
from meetara_build.config.schema import Base, Build, Decision, Domain, Hardware, Shape
from meetara_build.config.yaml_files import (
    Content,
    Place,
    Value,
    look_up,
    parse_yaml,
    read_lines,
    read_text,
    read_yaml,
)
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import show_line
from meetara_build.store.manifest import digest_json
from meetara_build.store.memo import Memo

GROUPS = ("base", "hardware")
"""Groups of which one member is chosen for each domain."""
SHAPES: dict[str, type[Shape]] = {"base": Base, "hardware": Hardware, "domain": Domain}
WHOLE_BUILD = ("domains", "root", "store", "context", "sample", "agents", "tuning", "locked")
"""Keys of build.yaml that belong to all domains together."""
SECTIONS = [key for key in Build.model_fields if key not in WHOLE_BUILD]
"""Keys of build.yaml that a base, a machine, a domain and the command line may set too."""
MAY_SET = {
    "base": ("base",),
    "hardware": ("hardware",),
    "domain": ("domain", "hardware"),
    COMMAND_LINE: ("domain", "hardware"),
}
"""By kind of layer, the sections besides ``SECTIONS`` that it may have keys of."""
HEADER = re.compile(r"#\s*@(\w+) +(\S+)")
GLOBAL = "_global_"


@dataclass(frozen=True)
class Layer:
    """What one file, an overlay or the command line sets.

    Attributes:
        name: how messages call it: a path, or "command line".
        content: its keys where they stand in the composed configuration.
        choices: the member of each group that it chooses.
        above: the keys that the file leaves out: ``("domain",)`` where it has the domain's own keys
            alone.
        decisions: an overlay's, in their order.
        taken: places that it takes away.
        faults: by place in the composed configuration, what cannot stand there at all.
    """

    kind: str
    name: str
    content: Content = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    above: Place = ()
    text: str = ""
    decisions: Sequence[Decision] = ()
    taken: Sequence[Place] = ()
    faults: Mapping[Place, str] = field(default_factory=dict)

    def has(self, at: Place) -> bool:
        """Whether it sets a place, or something below it, or takes it away."""
        return bool(look_up(self.content, at)) or at in self.taken

    def key(self, at: Place) -> str:
        """A place as the file has it."""
        return ".".join(
            map(str, at[len(self.above) :] if at[: len(self.above)] == self.above else at)
        )

    def line(self, at: Place) -> int | None:
        """The line where a place stands, or the nearest place around it."""
        lines = self.lines()
        return next((lines[at[:end]] for end in range(len(at), 0, -1) if at[:end] in lines), None)

    def where(self, at: Place) -> str:
        """``FILE:LINE`` of a place."""
        line = self.line(at)
        return f"{self.name}:{line}" if line else self.name

    def lines(self) -> dict[Place, int]:
        """Line numbers by place in the composed configuration, choices of groups among them."""
        if self.kind == COMMAND_LINE:
            return {}
        path = Path(self.name)
        written = read_lines(path)
        if self.kind == "overlay":
            entries = read_yaml(path)["decisions"] if written else []
            return {
                tuple(str(entry["key"]).split(".")): written["decisions", number]
                for number, entry in enumerate(entries)
            }
        chosen = {
            (str(at[2]).rpartition("/")[2].rpartition(" ")[2],): line
            for at, line in written.items()
            if len(at) == 3 and at[0] == "defaults"
        }
        return {(*self.above, *at): line for at, line in written.items()} | chosen


def find_layer(layers: Sequence[Layer], at: Place) -> tuple[Layer, Place]:
    """The layer that decides a place, and the place or what is around it that the layer has."""
    for end in range(len(at), 0, -1):
        for layer in reversed(layers):
            if layer.has(at[:end]):
                return layer, at[:end]
    return layers[0], ()


def locate(layers: Sequence[Layer], at: Place) -> tuple[str, str]:
    """``FILE:LINE`` of what decides a place, and the key there; of what is missing the file that
    should have it."""
    layer, _ = find_layer(layers, at)
    if not layer.has(at):
        own = [one for one in layers if one.kind == at[0]] or [layer]
        holders = [one for one in layers if one.has(at[:-1])] or own
        layer = holders[-1 if any(isinstance(part, int) for part in at) else 0]
    return layer.where(at), layer.key(at)


def find_line(path: Path, key: str) -> int | None:
    """The line where a file below conf/ has a key, its own ones with or without its group before
    them."""
    group = path.parent.name
    lines = Layer(group, str(path)).lines()
    parts = tuple(key.split("."))
    own = ("domain" if group == "overlay" else group, *parts)
    ends = range(len(own), 0, -1)
    places = [at[:end] for end in ends for at in (own, parts) if end > (at is own)]
    return next((lines[at] for at in places if at in lines), None)


def leaves(content: Value, at: Place = ()) -> Iterator[tuple[Place, Value]]:
    """Every value that holds no further keys, and its place; a list is one value."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*at, key))
    elif at:
        yield at, content


def put(content: Content, at: Place, value: Value) -> None:
    """Set a place; what is no mapping on the way there is left for the schema to refuse."""
    place: Value = content
    for part in at[:-1]:
        if not isinstance(place, dict):
            return
        place = place.setdefault(str(part), {})
    if isinstance(place, dict):
        place[str(at[-1])] = value


def drop(content: Content, at: Place) -> None:
    """Take a place away."""
    for above in look_up(content, at[:-1]):
        if isinstance(above, dict):
            above.pop(str(at[-1]), None)


def read_build(path: Path, memo: Memo) -> Layer:
    """``conf/build.yaml``, Hydra's primary config; ``memo`` has what was read before by its text.

    Raises:
        ConfigError: it is no such file, or its defaults list is of another form.
    """
    layer, content = _read("build", path, memo)
    entries = content.pop("defaults", [])
    choices = _build_choices(entries if isinstance(entries, list) else [], layer)
    faults: dict[Place, str] = {
        (key,): _describe_unknown(
            layer,
            (key,),
            f"; write `- {key}: NAME` in `defaults:`, and its keys in conf/{key}/NAME.yaml",
        )
        for key in SHAPES
        if key in content
    }
    return Layer("build", layer.name, content, choices, text=layer.text, faults=faults)


def read_member(group: str, path: Path, memo: Memo) -> Layer:
    """A base's, a machine's or a domain's file; ``memo`` has what was read before by its text.

    Raises:
        ConfigError: it is no such file, or chooses what it cannot.
    """
    layer, content = _read(group, path, memo)
    package = _read_package(layer.text) or group
    if package not in (GLOBAL, group):
        raise ConfigError(
            f"{path}: '{show_line(package)}' is no package here; write `# @package {GLOBAL}`, or "
            "leave that line out"
        )
    if package == GLOBAL:
        entries, choices = content.pop("defaults", []), {}
        if entries:
            choices = (
                _domain_choices(entries, layer) if group == "domain" else _refuse_choices(layer)
            )
        return Layer(
            group,
            layer.name,
            content,
            choices,
            (),
            layer.text,
            faults=_find_misplaced(layer, content),
        )
    if "defaults" in content and group != "domain":
        _refuse_choices(layer)
    below = Layer(group, layer.name, {group: content}, {}, (group,), layer.text)
    odd = [key for key in content if key not in SHAPES[group].model_fields]
    faults: dict[Place, str] = {
        (group, key): _describe_unknown(below, (group, key), _new_form(group))
        for key in odd
        if key in ("overrides", "defaults", *SECTIONS)
    }
    return Layer(group, layer.name, {group: content}, {}, (group,), layer.text, faults=faults)


def overlay_layer(path: Path, decisions: Sequence[Decision]) -> Layer:
    """What agents decided for a domain."""
    content: Content = {}
    for one in decisions:
        if one.key not in GROUPS:
            put(content, tuple(one.key.split(".")), one.value)
    choices = {one.key: str(one.value) for one in decisions if one.key in GROUPS}
    return Layer("overlay", str(path), content, choices, decisions=decisions)


def _read(kind: str, path: Path, memo: Memo) -> tuple[Layer, Content]:
    layer = Layer(kind, str(path), text=read_text(path))

    def parse() -> Content:
        content = parse_yaml(layer.text, layer.name)
        if not isinstance(content, dict):
            raise ConfigError(
                f"{path}: expected `key: value` lines; see the files beside it for the form"
            )
        if "hydra" in content:
            raise ConfigError(
                _describe_unknown(
                    layer, ("hydra",), "; Hydra itself is set up by the tool: remove it"
                )
            )
        if faults := list(_odd_values(layer, content)):
            raise ConfigError("\n".join(faults))
        return content

    content: Content = memo.get(f"yaml {digest_json(layer.text)}", parse)
    return layer, dict(content)


def _read_package(text: str) -> str | None:
    """What a file's ``# @package NAME`` says, among the lines of that form at its very top, as
    Hydra reads it."""
    package = None
    for line in filter(None, map(str.strip, text.splitlines())):
        header = HEADER.fullmatch(line)
        if header is None:
            break
        package = header[2] if header[1] == "package" else package
    return package


def _odd_values(layer: Layer, content: object, at: Place = ()) -> Iterator[str]:
    """What YAML can say and no configuration has: a key that is no text, a date, bytes."""
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _odd_values(layer, value, (*at, key))
            else:
                yield (
                    f"{layer.where(at)}: key '{show_line(key)}' is no text to YAML; put it in "
                    "quotes"
                )
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _odd_values(layer, value, (*at, number))
    elif not isinstance(content, str | int | float | None):
        shown = f"{'.'.join(map(str, at))}: {show_line(content)}"
        yield f"{layer.where(at)}: {shown} is a {type(content).__name__} to YAML; put it in quotes"


def _build_choices(entries: Sequence[object], layer: Layer) -> dict[str, str]:
    """What build.yaml's defaults list chooses: each entry wins over those before it, so it has one
    order."""
    wanted = ["_self_", *GROUPS, "domain"]
    found: dict[str, str] = {}
    for entry in entries:
        pair = entry if isinstance(entry, dict) and len(entry) == 1 else {str(entry): ""}
        group, name = next((str(key), str(value)) for key, value in pair.items())
        if group not in wanted:
            raise ConfigError(
                f"{layer.where(('defaults',))}: defaults: unknown group "
                f"'{show_line(group)}'{nearest(group, wanted)}"
            )
        found[group] = name
    for group in wanted:
        if group not in found:
            name = {"_self_": "_self_", "domain": "domain: ???"}.get(group, f"{group}: NAME")
            raise ConfigError(
                f"{layer.where(('defaults',))}: defaults: no {group} is chosen; add `- {name}`"
            )
    if list(found) != wanted or len(entries) != len(wanted):
        raise ConfigError(
            f"{layer.where(('defaults',))}: defaults: each wins over those before it; write "
            f"{', '.join(wanted)} once each, in this order"
        )
    del found["_self_"]
    return found


def _domain_choices(entries: object, layer: Layer) -> dict[str, str]:
    """The base and the machine that a domain's defaults list chooses."""
    found: dict[str, str] = {}
    known = {f"override /{group}": group for group in GROUPS}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        if entry == "_self_" and number == 0:
            continue
        pair = entry if isinstance(entry, dict) and len(entry) == 1 else {str(entry): None}
        word, name = next(iter(pair.items()))
        if word not in known or known[word] in found or not isinstance(name, str):
            raise ConfigError(
                f"{layer.where(('defaults', number))}: defaults: {show_line(entry)} cannot stand "
                "here; a domain chooses `- override /base: NAME` and `- override /hardware: "
                "NAME`, each once"
            )
        found[known[word]] = name
    return found


def _refuse_choices(layer: Layer) -> dict[str, str]:
    raise ConfigError(
        f"{layer.where(('defaults',))}: unknown key 'defaults'; base and hardware are chosen in "
        "conf/build.yaml, or in a domain's file"
    )


def _find_misplaced(layer: Layer, content: Content) -> dict[Place, str]:
    """What a file of the global form may not have at its top."""
    known = (*MAY_SET[layer.kind], *SECTIONS)
    return {
        (key,): _describe_unknown(layer, (key,), describe_misplaced(layer.kind, key))
        for key in content
        if key not in known
    }


def describe_misplaced(kind: str, key: str) -> str:
    """What to do about a key at the top of a layer that may not stand there."""
    if key in WHOLE_BUILD:
        return "; it belongs to the whole build: set it in conf/build.yaml"
    if key in SHAPES:
        chosen = (
            ""
            if key == "domain" or kind not in ("domain", COMMAND_LINE)
            else f"; choose another {key}, or"
        )
        return f"{chosen or '; '}{' ' if chosen else ''}set it in conf/{key}/NAME.yaml"
    if kind in SHAPES and key in SHAPES[kind].model_fields:
        return f"; write it below `{kind}:`"
    if key == "overrides" and kind in SHAPES:
        return _new_form(kind)
    return nearest(key, [*MAY_SET[kind], *SECTIONS])


def _describe_unknown(layer: Layer, at: Place, advice: str) -> str:
    return f"{layer.where(at)}: unknown key '{show_line(layer.key(at))}'{advice}"


def _new_form(group: str) -> str:
    """How a file says what its own keys are, and what it sets of build.yaml's."""
    another = ", and choose with `defaults: [override /base: NAME]`" if group == "domain" else ""
    return (
        f"; begin the file with `# @package {GLOBAL}`, write its own keys below `{group}:` and "
        f"build.yaml's beside it, like `training: {{epochs: 4}}`{another}"
    )
