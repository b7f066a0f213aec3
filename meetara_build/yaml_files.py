"""Reading YAML: numbers as people write them, no key twice, and the line of each key for messages."""

import re
from pathlib import Path
from typing import Any

import yaml

from meetara_build.errors import ConfigError

Place = tuple[str | int, ...]
"""A path of keys and list indices within a file."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: the file is missing, is no YAML, names a key twice, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; create it, or mend the name that points to it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); save it as UTF-8 text and try again") from None
    try:
        _check_nodes(yaml.compose(text, Loader=yaml.CSafeLoader), path)
        content = parsed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: not valid YAML ({problem}); mend that line") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected `key: value` lines; see the files beside it for the form")
    return content


def parsed(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.CSafeLoader):
    """YAML 1.1 reads ``1e-3`` as text; Hydra and everyone else read a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _check_nodes(node: yaml.Node | None, path: Path, above: tuple[yaml.Node, ...] = ()) -> None:
    """Refuse what YAML allows and nobody means."""
    if node in above:
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: an anchor that refers to itself; write the value out")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{path}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}: a list or mapping cannot be a key; use a word")
            if key.value in seen:
                raise ConfigError(f"{where}: key '{key.value}' stands twice; keep one of them")
            seen.add(key.value)
            _check_nodes(value, path, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_nodes(value, path, (*above, node))


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

    walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) if path.exists() else None, ())
    return lines
