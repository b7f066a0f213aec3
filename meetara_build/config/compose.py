"""Composes a configuration with Hydra. The only importer of Hydra and OmegaConf; tried with Hydra
1.3.8, OmegaConf 2.3.1.

Hydra takes 0.1 s to compose a domain whole. So it composes what domains on one base and machine
share, once; a domain's file is merged over that as Hydra would, the command line's overrides are
parsed by Hydra's own grammar, and interpolations are resolved last. A test holds it equal to
``hydra.compose("build", ["domain=NAME", …])``.
"""

import contextlib
import copy
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from meetara_build.config.layers import (
    GROUPS,
    MAY_SET,
    SECTIONS,
    Layer,
    describe_misplaced,
    find_layer,
    locate,
    put,
)
from meetara_build.config.overrides import COMMAND_LINE
from meetara_build.config.yaml_files import Content, Place, Value, escape_interpolations
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import show_line, show_short

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

RESOLVERS = ("oc.env", "oc.decode", "oc.select", "oc.create", "oc.dict.keys", "oc.dict.values")
"""What an interpolation may call: what gives the same for the same files and environment."""
CALLS = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")
MISSING = "???"
"""Hydra's mark of a value that is still to be given."""
LOCK = threading.Lock()
"""Hydra keeps where it reads from in the process, once."""


def compose_pair(conf: Path, base: str, hardware: str) -> Content:
    """build.yaml, a base and a machine as Hydra composes them, interpolations left as they are.

    Raises:
        ConfigError: Hydra finds a fault.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with LOCK, initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            composed = compose("build", [f"base={base}", f"hardware={hardware}", "~domain"])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(
            f"{conf}: build.yaml, base {base} and hardware {hardware} cannot be composed "
            f"({_first_line(error)}); mend the one it names"
        ) from None
    return cast(Content, OmegaConf.to_container(composed))


def lay_over(below: Content, own: Content) -> Content:
    """A domain's keys merged over what it shares with others, as Hydra does: mappings join, all
    else is replaced.

    Only where a text is not what it says does it take OmegaConf itself, whose import alone takes
    0.1 s.
    """
    if not any(True for content in (below, own) for _ in find_unresolved(content)):
        return join(below, own)
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.unsafe_merge(OmegaConf.create(below), OmegaConf.create(own))
    except OmegaConfBaseException:  # a list for a mapping, which the schema refuses with its line
        return join(below, own)
    return cast(Content, OmegaConf.to_container(merged))


def join(below: Content, own: Content) -> Content:
    """Two mappings in one: mappings in both are joined, all else is the second's."""
    found = dict(below)
    for key, value in own.items():
        there = found.get(key)
        both = isinstance(there, dict) and isinstance(value, dict)
        found[key] = join(there, value) if both else value  # type: ignore[arg-type]
    return found


def refuse_broken(layer: Layer) -> None:
    """Refuse what begins like an interpolation and is of no such form.

    Raises:
        ConfigError: with every such text, each with file, line and key.
    """
    texts = [(at, text) for at, text in find_unresolved(layer.content) if text != MISSING]
    if not texts:
        return
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    faults = []
    for at, text in texts:
        try:
            OmegaConf.create([text])
        except OmegaConfBaseException as error:
            faults.append(
                f"{layer.where(at)}: {layer.key(at)}: '{show_line(text)}' is no interpolation "
                f"({_first_line(error)}); write `${{KEY}}` or `${{oc.env:NAME}}`, or `\\${{` where "
                "the text should have one"
            )
    if faults:
        raise ConfigError("\n".join(faults))


class Said:
    """The overrides of a command line, parsed by Hydra's grammar.

    Attributes:
        layer: the keys they set, for messages; their ``choices`` are those of base and machine.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Parse them.

        Raises:
            ConfigError: one is not of Hydra's grammar, or sets what a command line cannot.
        """
        self.values: list[Override] = []
        content: Content = {}
        choices: dict[str, str] = {}
        for word, one in zip(words, _parse(words), strict=True):
            key, value = one.key_or_group, one.value()
            if key in GROUPS:
                if (
                    one.is_delete()
                    or one.is_add()
                    or one.is_force_add()
                    or not isinstance(value, str)
                ):
                    raise _wrong(word, f"choose one: `{key}=NAME`")
                choices[key] = value
                continue
            first = key.partition(".")[0]
            if first not in (*MAY_SET[COMMAND_LINE], *SECTIONS) or key in MAY_SET[COMMAND_LINE]:
                advice = (
                    "; name domains without it"
                    if key == "domain"
                    else describe_misplaced(COMMAND_LINE, first)
                )
                raise _wrong(word, advice.removeprefix("; "), f"unknown key '{show_line(key)}'")
            if not one.is_delete():
                put(content, tuple(key.split(".")), cast(Value, value))
            self.values.append(one)
        taken: list[Place] = [
            tuple(one.key_or_group.split(".")) for one in self.values if one.is_delete()
        ]
        self.layer = Layer(COMMAND_LINE, COMMAND_LINE, content, choices, taken=taken)

    def keys(self) -> list[str]:
        """The dotted keys that they set or take away."""
        return list(dict.fromkeys(one.key_or_group for one in self.values))


def finish(
    content: Content,
    decided: Mapping[str, Value],
    said: Said | None,
    layers: Sequence[Layer],
) -> tuple[Content, set[str]]:
    """A merged configuration with an overlay's decisions, the command line's overrides and its
    interpolations resolved.

    What an agent decides is text as it stands, never an interpolation.

    Returns:
        The configuration, and the environment variables that it was made with.

    Raises:
        ConfigError: with every interpolation that leads nowhere, each with file, line and key.
    """
    if not (said and said.values) and not any(True for _ in find_unresolved(content)):
        plain = copy.deepcopy(content) if decided else content
        for key, value in decided.items():
            put(plain, tuple(key.split(".")), value)
        return plain, set()
    from omegaconf import OmegaConf

    escaped = copy.deepcopy(content)
    for key, value in decided.items():
        put(escaped, tuple(key.split(".")), escape_interpolations(value))
    config = OmegaConf.create(cast("dict[str, object]", escaped))
    OmegaConf.set_struct(config, True)
    for one in said.values if said else []:
        _apply(config, one)
    return _resolve(config, layers)


def _parse(words: Sequence[str]) -> "Iterator[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for word in words:
        try:
            one = parser.parse_override(word)
        except HydraException as error:
            raise _wrong(
                word, f"write KEY=VALUE, +KEY=VALUE or ~KEY ({_first_line(error)})"
            ) from None
        if one.is_sweep_override():
            raise _wrong(
                word, "give one value; a list is [a,b], and text with a comma stands in quotes"
            )
        if one.package is not None:
            raise _wrong(word, "leave out what begins with @")
        yield one


def _apply(config: "DictConfig", one: "Override") -> None:
    """One override as Hydra applies it."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    key, value, word = one.key_or_group, one.value(), str(one.input_line)
    above, _, last = key.rpartition(".")
    there = OmegaConf.to_container(config)
    known = _keys(cast(Content, there))
    unknown = f"unknown key '{show_line(key)}'"
    before = next((found for at, found in known if at == key), None)
    if any(isinstance(found, list) and key.startswith(f"{at}.") for at, found in known):
        raise _wrong(word, "give the whole list: KEY=[a,b]")
    try:
        if one.is_delete():
            if not any(at == key for at, _ in known):
                raise _wrong(
                    word, nearest(key, [at for at, _ in known]).removeprefix("; "), unknown
                )
            if value is not None and value != before:
                raise _wrong(word, f"it is {show_short(before)}: write `~{key}`")
            with open_dict(config):
                del OmegaConf.select(config, above)[last]
        elif one.is_add() and before is not None and not isinstance(value, dict | list):
            raise _wrong(word, f"it is there already: write `{word[1:]}`")
        else:
            adds = one.is_add() or one.is_force_add()
            OmegaConf.update(config, key, value, merge=True, force_add=adds)
    except OmegaConfBaseException as error:
        if before is not None:
            raise _wrong(word, f"it is {show_short(before)} ({_first_line(error)})") from None
        close = nearest(key, [at for at, _ in known]).removeprefix("; ")
        end = "" if close.endswith("?") else "."
        advice = f"{close}{end} To add a key to a mapping, write `+{word}`"
        raise _wrong(word, advice, unknown) from None


def _keys(content: Content, above: str = "") -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = []
    for key, value in content.items():
        found.append((f"{above}{key}", value))
        found += _keys(value, f"{above}{key}.") if isinstance(value, dict) else []
    return found


def _resolve(config: "DictConfig", layers: Sequence[Layer]) -> tuple[Content, set[str]]:
    from omegaconf import Container, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    content = cast(Content, OmegaConf.to_container(config))
    faults: list[str] = []
    with _record_environment() as used:
        for at, text in list(find_unresolved(content)):
            where, key = locate(layers, at)
            strange = [name for name in CALLS.findall(text) if name not in RESOLVERS]
            if text == MISSING:
                if find_layer(layers, at)[0].kind != "overlay":
                    faults.append(f"{where}: {key}: is still to be given; write its value")
                continue
            if strange:
                faults.append(
                    f"{where}: {key}: '{show_line(text)}' calls an unknown "
                    f"'{strange[0]}'{nearest(strange[0], RESOLVERS)}"
                )
                continue
            try:
                value: object = config
                for part in at:
                    value = value[part]  # type: ignore[index]
                if isinstance(value, Container):
                    value = OmegaConf.to_container(value, resolve=True)
            except (OmegaConfBaseException, RecursionError) as error:
                faults.append(
                    f"{where}: {key}: '{show_line(text)}' leads nowhere ({_first_line(error)}); "
                    "set the variable, name a key that is there in full, give a default: "
                    "`${oc.env:NAME,DEFAULT}`, or write `\\${` where the text itself is meant"
                )
            else:
                _replace(content, at, cast(Value, value))
    if faults:
        raise ConfigError("\n".join(faults))
    return content, used


@contextlib.contextmanager
def _record_environment() -> Iterator[set[str]]:
    """The environment variables that are asked for meanwhile: whoever keeps a result looks whether
    they are the same."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    used: set[str] = set()

    def env(*given: str) -> object:
        used.add(str(given[0]))
        return oc.env(*given)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield used
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def find_unresolved(content: Value, at: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text that is not what it says: an interpolation, or a value that is still to be
    given."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from find_unresolved(value, (*at, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from find_unresolved(value, (*at, number))
    elif isinstance(content, str) and ("${" in content or content == MISSING):
        yield at, content


def _replace(content: Content, at: Place, value: Value) -> None:
    place: Value = content
    for part in at[:-1]:
        place = place[part]  # type: ignore[index]
    place[at[-1]] = value  # type: ignore[index]


def _wrong(word: str, advice: str, what: str = "cannot stand here") -> ConfigError:
    return ConfigError(f"{COMMAND_LINE}: '{show_line(word)}': {what}; {advice}")


def _first_line(error: BaseException) -> str:
    return show_line((str(error) or type(error).__name__).splitlines()[0])
