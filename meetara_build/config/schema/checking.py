"""A base for every shape, and a message for each fault: file, line, key, and what should stand there."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from meetara_build.config.keys import is_within
from meetara_build.config.yaml_files import Place, read_lines
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import show_short

Origin = Mapping[str, Path]
UNION_MEMBERS = ("bool", "int", "float", "str", "list[", "dict[", "literal[", "[key]")
"""How pydantic names the members of a union, and a mapping's keys, in the path of a fault."""


class Shape(BaseModel):
    """Base of every shape: no unknown keys, no silent conversions from text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Shape)


def check(shape: type[S], content: Any, path: Path, origin: Origin | None = None) -> S:
    """``content`` as a ``shape``; ``origin`` names the files of those dotted keys that another file than ``path`` sets.

    Raises:
        ConfigError: with every fault, each with file, line and key path.
    """
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(shape, error.errors(), path, origin))) from None


def _faults(
    shape: type[Shape], errors: Iterable[Any], path: Path, origin: Origin | None
) -> list[str]:
    """A line for each place that is wrong; what the members of a union say of one place is one fault."""
    lines = read_lines(path)
    by_place: dict[Place, list[Any]] = {}
    for error in errors:
        by_place.setdefault(_place(error, lines), []).append(error)
    return [
        _fault(shape, at, found, *_where(at, path, lines, origin)) for at, found in by_place.items()
    ]


def _place(error: Any, lines: Mapping[Place, int]) -> Place:
    """Where in the file a fault is: pydantic's own path without the names of a union's members."""
    at: Place = ()
    for part in error["loc"]:
        if (*at, str(part)) in lines:
            at = (*at, str(part))
        elif (*at, part) in lines or not str(part).startswith(UNION_MEMBERS):
            at = (*at, part)
    return at


def _where(
    at: Place, path: Path, lines: Mapping[Place, int], origin: Origin | None
) -> tuple[str, str]:
    """File and line, and the dotted key. A composed value stands where the file that set it sets it."""
    dotted = ".".join(map(str, at))
    key = next((key for key in origin or () if is_within(dotted, [key])), None)
    if origin and key:
        path, lines = origin[key], read_lines(origin[key])
        line = lines.get(("overrides", key)) or next(iter(lines.values()), None)
    else:
        line = next((lines[at[:end]] for end in range(len(at), 0, -1) if at[:end] in lines), None)
    return f"{path}:{line}" if line else str(path), dotted


def _fault(shape: type[Shape], at: Place, errors: list[Any], where: str, dotted: str) -> str:
    error = errors[0]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{dotted}'{nearest(str(at[-1]), _keys(shape, at[:-1]))}"
    if error["type"] == "literal_error" and error["loc"][-1] == "[key]":
        known = re.findall("'(.*?)'", error["ctx"]["expected"])
        return f"{where}: unknown key '{dotted}'{nearest(str(at[-1]), known)}"
    if error["type"] == "missing":
        return f"{where}: key '{dotted}' is missing; add it"
    wanted = " or ".join(dict.fromkeys(_wanted(shape, at, error) for error in errors)).replace(
        "or should be", "or"
    )
    given = "" if error["type"] == "value_error" else f", not {show_short(repr(error['input']))}"
    return f"{where}: {dotted + ': ' if dotted else ''}{wanted}{given}"


def _wanted(shape: type[Shape], at: Place, error: Any) -> str:
    """What a fault says should stand there."""
    if error["type"] == "model_type":
        return f"expected `key: value` lines of {', '.join(_keys(shape, at))}"
    if error["type"] == "dict_type":
        return "expected `key: value` lines"
    if error["type"] == "too_short":
        return "needs at least one entry"
    message: str = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return message[0].lower() + message[1:]


def _keys(shape: type[Shape], at: tuple[str | int, ...]) -> list[str]:
    """The keys that a nested place of a shape knows."""
    current: Any = shape
    for part in at:
        if isinstance(part, int):
            continue
        current = (
            _inner(current.model_fields[part].annotation) if part in current.model_fields else Shape
        )
    return list(current.model_fields)


def _inner(annotation: Any) -> type[Shape]:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    return next(
        (inner for part in get_args(annotation) if (inner := _inner(part)) is not Shape), Shape
    )
