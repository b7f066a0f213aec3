"""A base for every shape, and a message for each fault: file, line, key, and what should stand
there."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from meetara_build.config.yaml_files import Place, look_up, read_lines
from meetara_build.errors import ConfigError, nearest
from meetara_build.outside import show_short

Locate = Callable[[Place], tuple[str, str]]
"""Says of a place in a composed content ``FILE:LINE``, and the key as that file has it."""
UNION_MEMBERS = ("bool", "int", "float", "str", "list[", "dict[", "literal[", "[key]")
"""How pydantic names the members of a union, and a mapping's keys, in the path of a fault."""


class Shape(BaseModel):
    """Base of every shape: no unknown keys, no silent conversions from text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Shape)


def check(shape: type[S], content: Any, path: Path, locate: Locate | None = None) -> S:
    """``content`` as a ``shape``; ``locate`` says where its places are, if not in ``path`` alone.

    Raises:
        ConfigError: with every fault, each with file, line and key path.
    """
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        found = _faults(shape, error.errors(), content, locate or partial(_locate, path))
        raise ConfigError("\n".join(found)) from None


def _faults(shape: type[Shape], errors: Iterable[Any], content: Any, locate: Locate) -> list[str]:
    """A line for each place that is wrong; what the members of a union say of one place is one
    fault."""
    by_place: dict[Place, list[Any]] = {}
    for error in errors:
        by_place.setdefault(_place(error, content), []).append(error)
    return [_fault(shape, at, found, *locate(at)) for at, found in by_place.items()]


def _place(error: Any, content: Any) -> Place:
    """Where in the content a fault is: pydantic's own path without the names of a union's
    members."""
    at: Place = ()
    for part in error["loc"]:
        if look_up(content, (*at, part)) or not str(part).startswith(UNION_MEMBERS):
            at = (*at, part)
    return at


def _locate(path: Path, at: Place) -> tuple[str, str]:
    lines = read_lines(path)
    line = next((lines[at[:end]] for end in range(len(at), 0, -1) if at[:end] in lines), None)
    return f"{path}:{line}" if line else str(path), ".".join(map(str, at))


def _fault(shape: type[Shape], at: Place, errors: list[Any], where: str, dotted: str) -> str:
    error = errors[0]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{dotted}'{nearest(str(at[-1]), _keys(shape, at[:-1]))}"
    if error["type"] == "literal_error" and error["loc"][-1] == "[key]":
        known = re.findall("'(.*?)'", error["ctx"]["expected"])
        return f"{where}: unknown key '{dotted}'{nearest(str(at[-1]), known)}"
    if error["type"] == "missing":
        return f"{where}: key '{dotted}' is missing; add it"
    wanted = " or ".join(
        dict.fromkeys(_describe_wanted(shape, at, error) for error in errors)
    ).replace("or should be", "or")
    given = "" if error["type"] == "value_error" else f", not {show_short(repr(error['input']))}"
    return f"{where}: {dotted + ': ' if dotted else ''}{wanted}{given}"


def _describe_wanted(shape: type[Shape], at: Place, error: Any) -> str:
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
