"""Reading and writing YAML: numbers as people write them, no key twice, the line of each key for
messages.

What is written here is read back the same, or not written.
"""

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from meetara_build.errors import ConfigError
from meetara_build.outside import first_line, read_file, show_line

DEEPEST = 50
"""Levels of lists and mappings in each other."""
MOST_BYTES = 5_000_000
MOST_VALUES = 300_000
"""Of one file: far more than any configuration has, and no more than is read in seconds."""

Place = tuple[str | int, ...]
"""A path of keys and list indices within a file."""
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Content = dict[str, Value]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: the file is missing, is no YAML, names a key twice, or is not a mapping.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected `key: value` lines; see the files beside it for the form"
        )
    return content


def parse_yaml(text: str, name: str) -> Any:
    """What a YAML text says; ``name`` is what messages call it.

    Raises:
        ConfigError: it is no YAML, has what nobody means, or grows beyond all use.
    """
    try:
        _refuse_depth(text, name)
        _Checker(name).count_values(yaml.compose(text, Loader=yaml.CSafeLoader))
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: not valid YAML ({problem}); mend that line") from None
    except (
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # a date that is none, `!!int ""`, a number without end
        raise ConfigError(
            f"{name}: holds a value that cannot be read ({error}); put it in quotes"
        ) from None


def escape_interpolations(value: Value) -> Value:
    """A value of which OmegaConf reads no text as an interpolation."""
    if isinstance(value, dict):
        return {key: escape_interpolations(one) for key, one in value.items()}
    if isinstance(value, list):
        return [escape_interpolations(one) for one in value]
    if isinstance(value, str):
        return re.sub(r"(?<!\\)(\\*)(?=\$\{)", lambda found: found[1] * 2 + "\\", value)
    return value


def render_yaml(content: Any, name: str, width: int = 120) -> str:
    """Content as YAML that `parse_yaml` reads back the same; ``name`` is what messages call it.

    Raises:
        ConfigError: it holds what cannot be written so.
    """
    try:
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
        same = repr(parse_yaml(text, name)) == repr(content)
    except (yaml.YAMLError, RecursionError, UnicodeError, ConfigError) as error:
        raise ConfigError(
            f"{name}: cannot be written as YAML ({first_line(error)}); leave that value out"
        ) from None
    if not same:
        raise ConfigError(
            f"{name}: {show_line(content)[:200]} would not be read back the same; leave that value "
            "out"
        )
    return text


def read_text(path: Path) -> str:
    """A file's text, of a regular file alone: a pipe or a device would be waited for without end.

    Raises:
        ConfigError: it cannot be read, or is larger than any configuration.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"{path}: has {path.stat().st_size / 1e6:.0f} MB, and configuration may have "
                f"{MOST_BYTES / 1e6:.0f}; keep data in files that `sources:` names"
            )
        return read_file(path).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; create it, or mend the name that points to it"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); save it as UTF-8 text and try again"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); put a file in its place, or mend its "
            "rights"
        ) from None


FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
"""YAML 1.1 reads ``1e-3`` as text; Hydra and everyone else read a number."""
RARE_LINE_ENDS = frozenset("\x85\u2028\u2029")


class _Loader(yaml.CSafeLoader):
    """Reads what YAML 1.1 and FLOAT say."""


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what ``_Loader`` would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Values are written out: a person reads them."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Line ends that YAML knows and no editor shows are written as escapes: without, they come back
    as others."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, '"' if set(text) & RARE_LINE_ENDS else None
    )


_Loader.add_implicit_resolver(*FLOAT)
_Dumper.add_implicit_resolver(*FLOAT)
_Dumper.add_representer(str, _represent_text)


def _refuse_depth(text: str, name: str) -> None:
    """What is nested without end would end the process, since the library goes down by recursion in
    C."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > DEEPEST:
            raise ConfigError(f"{name}: has more than {DEEPEST} levels; write it with fewer")


class _Checker:
    """Refuses what YAML allows and nobody means."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[int, int] = {}
        self.open: set[int] = set()

    def count_values(self, node: yaml.Node | None) -> int:
        """How many values a node holds, each as often as anchors repeat it.

        Raises:
            ConfigError: too many, a key twice, a key that is no word, an anchor within itself.
        """
        if not isinstance(node, yaml.MappingNode | yaml.SequenceNode):
            return 1
        if id(node) in self.open:
            raise ConfigError(
                f"{self._where(node)}: an anchor that refers to itself; write the value out"
            )
        if id(node) not in self.counts:
            self.open.add(id(node))
            held = self._values(node) if isinstance(node, yaml.MappingNode) else node.value
            self.counts[id(node)] = 1 + sum(self.count_values(value) for value in held)
            self.open.remove(id(node))
        if self.counts[id(node)] > MOST_VALUES:
            raise ConfigError(
                f"{self._where(node)}: more than {MOST_VALUES:,} values, with what anchors repeat; "
                "keep data in files that `sources:` names"
            )
        return self.counts[id(node)]

    def _values(self, node: yaml.MappingNode) -> list[yaml.Node]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(
                    f"{self._where(key)}: a list or mapping cannot be a key; use a word"
                )
            if key.value in seen:
                raise ConfigError(
                    f"{self._where(key)}: key '{show_line(key.value)}' stands twice; keep one of "
                    "them"
                )
            seen.add(key.value)
        return [value for _, value in node.value]

    def _where(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def look_up(content: Value, at: Place) -> list[Value]:
    """The value at a place, in a list; an empty one where there is none."""
    for part in at:
        if not isinstance(content, dict | list):
            return []
        try:
            content = content[part]  # type: ignore[index]
        except (LookupError, TypeError):
            return []
    return [content]


def read_lines(path: Path) -> dict[Place, int]:
    """Line number (from 1) of each key and list item of a YAML file."""
    lines: dict[Place, int] = {}

    def walk(node: yaml.Node | None, at: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*at, key.value)] = key.start_mark.line + 1
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*at, index)] = value.start_mark.line + 1
                walk(value, (*at, index))

    walk(
        yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        if path.exists()
        else None,
        (),
    )
    return lines
