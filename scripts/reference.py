"""Write docs/reference/configuration.md and commands.md from the schema and the command line.

python scripts/reference.py [--check]
"""

import argparse
import ast
import contextlib
import io
import re
import sys
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
import yaml

from meetara_build.cli.app import app
from meetara_build.cli.init import init
from meetara_build.cli.stage import parser as stage_parser
from meetara_build.config import schema
from meetara_build.config.schema import (
    Base,
    Build,
    Bundle,
    Domain,
    Hardware,
    Overlay,
    Provider,
    Safety,
    Shape,
)
from meetara_build.config.schema.values import Commit, Digest, Name, Pinned, QuantName, Scalar
from meetara_build.graph import load
from meetara_build.graph.stages import NAMES
from meetara_build.plan.provenance import origin

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "docs" / "reference"
COMMAND = "python scripts/reference.py"
MADE = f"Made by `{COMMAND}`: change nothing here by hand."
TYPES = {
    Commit: "a commit's 40 hex digits",
    Digest: "a SHA-256",
    Name: "a name",
    Pinned: "`PACKAGE==VERSION`",
    QuantName: "a quant type",
    Scalar: "a value",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "`true` or `false`",
    type(None): "null",
    Any: "anything",
}
FILES: dict[type[Shape], str] = {
    Build: "conf/build.yaml",
    Domain: "conf/domain/NAME.yaml",
    Base: "conf/base/NAME.yaml",
    Hardware: "conf/hardware/NAME.yaml",
    Bundle: "conf/bundle/NAME.yaml",
    Provider: "conf/provider/NAME.yaml",
    Safety: "conf/safety/LANGUAGE.yaml",
    Overlay: "conf/overlay/DOMAIN.yaml",
}
WORDS = {int: "NUMBER", float: "NUMBER", Path: "PATH"}
"""What stands for an option's value."""
SOURCES = {
    ("build", "training.warm_start"): {"adapter"},
    **{("base", key): {"base"} for key in ("hub_id", "revision", "folder", "gguf.path")},
}
"""Keys that name files whose content a stage reads: they are in its sources, not in its recipe."""
BASES = ("smollm2_135m", "tiny", "qwen2_5_0_5b")
"""A base of a file, one made here, and one of a hub."""
LEVELS = "[nutrition, storytelling]"
"""A domain of each safety level."""
GROUPS = {
    Build: "build",
    Domain: "domain",
    Base: "base",
    Hardware: "hardware",
    Safety: "safety",
    Bundle: "bundle",
}
"""The kinds of files that recipes are made from."""


# The configuration


def read_docstrings() -> dict[tuple[str, str], str]:
    """What is said below each field of each shape, by shape and field."""
    found = {}
    for path in sorted(Path(schema.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for one, after in pairwise(node.body) if _is_class(node) else ():
                if isinstance(one, ast.AnnAssign) and _is_text(after):
                    text = " ".join(after.value.value.split())
                    found[node.name, one.target.id] = text.replace("``", "`")
    return found


def _is_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef)


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def read_comments(path: Path) -> dict[str, str]:
    """The comment beside each key of a YAML file, by the dotted key."""
    found, above = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"( *)([\w.]+):(?: [^#]*)?(?:# (.*))?$", line):
            spaces, key, comment = match.groups()
            above = [*above[: len(spaces) // 2], key]
            if comment:
                found[".".join(above)] = comment
    return found


def describe_type(annotation: Any) -> str:
    """A field's type as people say it."""
    with contextlib.suppress(TypeError):
        if annotation in TYPES:
            return TYPES[annotation]
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is typing.Annotated:
        return describe_type(parts[0]) + _describe_limits(parts[1:])
    if kind in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe_type, parts)))
    if kind is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if kind is list:
        return f"a list: {describe_type(parts[0])}"
    if kind is dict:
        return f"{describe_type(parts[0])} → {describe_type(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return "the keys below"
    return "text"


def _describe_limits(metadata: tuple[Any, ...]) -> str:
    """What a number may be, from pydantic's ``Field(ge=…)``."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [one for entry in metadata for one in getattr(entry, "metadata", [])]
    said = [
        f"{word} {getattr(limit, name):g}"
        for limit in limits
        for name, word in words.items()
        if isinstance(getattr(limit, name, None), int | float)
    ]
    return f", {' and '.join(said)}" if said else ""


def describe_field(field: Any) -> str:
    """As ``describe_type``; pydantic keeps a field's own limits apart from its annotation."""
    limits = types.SimpleNamespace(metadata=field.metadata)
    return describe_type(field.annotation) + _describe_limits((limits,))


def shapes_in(annotation: Any) -> Iterator[tuple[type[Shape], str]]:
    """The shapes that a field holds, and what stands between its key and theirs."""
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        yield annotation, ""
    for part in get_args(annotation):
        between = {list: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
        yield from ((shape, between + rest) for shape, rest in shapes_in(part))


def rows_of(
    shape: type[Shape], above: str = "", defaults: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every field, those of inner shapes after their key."""
    said = read_docstrings()
    comments = read_comments(REPOSITORY / "conf" / "build.yaml") if defaults is not None else {}
    for name, field in shape.model_fields.items():
        key = f"{above}{name}"
        inner = list(shapes_in(field.annotation))
        default = _show_default(field, name, defaults, bool(inner))
        meaning = comments.get(key) or said.get((shape.__name__, name), "")
        if not meaning and len(inner) == 1:
            meaning = " ".join((inner[0][0].__doc__ or "").split()).replace("``", "`")
        yield key, describe_field(field), default, meaning
        for each, between in inner:
            given = (defaults or {}).get(name) if defaults is not None and not between else None
            yield from rows_of(each, f"{key}{between}.", given)


def _show_default(field: Any, name: str, defaults: Mapping[str, Any] | None, has_keys: bool) -> str:
    if has_keys and (defaults is not None or field.is_required()):
        return ""
    if defaults is not None and name in defaults:
        text = yaml.safe_dump(defaults[name], default_flow_style=True, width=10_000)
        return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"
    if field.is_required():
        return "required"
    value = field.default
    return (
        ""
        if value is None
        else f"`{yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}`"
    )


def read_readers() -> dict[tuple[str, str], list[str]]:
    """Which stages' recipes hold what a key says, by kind of file and dotted key, in the order of
    the stages."""
    found: dict[tuple[str, str], set[str]] = {key: set(stages) for key, stages in SOURCES.items()}
    shapes = {group: shape for shape, group in GROUPS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        with contextlib.redirect_stdout(io.StringIO()):
            init(folder)
        for base in BASES:
            path = folder / "conf" / "build.yaml"
            text = re.sub(r"- base: \w+", f"- base: {base}", path.read_text(encoding="utf-8"))
            path.write_text(text.replace("domains: all ", f"domains: {LEVELS} "), "utf-8")
            graph = load(folder)
            for step in graph.steps.values():
                for leaf in _leaves(step.recipe):
                    place = origin(graph, step, leaf)
                    if place is not None:
                        group = Path(place.file).parent.name.replace("conf", "build")
                        if place.key.partition(".")[0] not in shapes[group].model_fields:
                            group = "build"  # an override
                        found.setdefault((group, place.key), set()).add(step.stage)
    return {key: sorted(stages, key=NAMES.index) for key, stages in found.items()}


def _leaves(recipe: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(recipe, Mapping) and recipe:
        for name, value in recipe.items():
            yield from _leaves(value, (*above, str(name)))
    else:
        yield above


def show_readers(group: str, key: str, readers: Mapping[tuple[str, str], list[str]]) -> str:
    """The stages that read a key, or anything below it."""
    key = key.replace("[]", "").replace(".NAME", "")
    stages = {
        stage
        for (kind, name), found in readers.items()
        if kind == group
        and (name == key or name.startswith(f"{key}.") or key.startswith(f"{name}."))
        if name
        for stage in found
    }
    return " ".join(sorted(stages, key=NAMES.index)) or "–"


def render_configuration() -> str:
    """The whole page."""
    readers = read_readers()
    build = yaml.safe_load((REPOSITORY / "conf" / "build.yaml").read_text(encoding="utf-8"))
    lines = [
        "# Configuration keys\n",
        f"{MADE}\n",
        "A stage that reads a key runs again when its value changes, and what follows it where its",
        "result comes out different. A key that no stage reads (–) changes no result. How files are",
        "laid over one another is in [concepts](../concepts.md#configuration).",
    ]
    for shape, file in FILES.items():
        group = GROUPS.get(shape)
        lines += [
            f"\n## {file}\n",
            "| key | value | default | meaning | read by |",
            "|---|---|---|---|---|",
        ]
        for key, kind, default, meaning in rows_of(
            shape, defaults=build if shape is Build else None
        ):
            read = show_readers(group, key, readers) if group else "–"
            cells = (f"`{key}`", kind, default, meaning, read)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


# The commands


def inner_commands(command: Any) -> dict[str, Any] | None:
    """The commands of a group by their names, each loaded from its file; None of a command."""
    if hasattr(command, "load"):
        return {name: command.load(name) for name in command.commands}
    return getattr(command, "commands", None)


def walk_commands(command: Any, words: str = "meetara-build") -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it; groups only stand before theirs."""
    inner = inner_commands(command)
    if inner is None:
        yield words, command
    for name, each in (inner or {}).items():
        yield from walk_commands(each, f"{words} {name}")


def describe_parameter(parameter: Any) -> tuple[str, str, str]:
    """How a parameter is given, its default, and its help."""
    if parameter.param_type_name == "argument":
        name = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
        return f"`{name}`", "" if parameter.required else "optional", parameter.help or ""
    given = ", ".join(parameter.opts)
    if not parameter.is_flag:
        given += f" {WORDS.get(parameter.type_descriptor.annotation, 'TEXT')}"
    default = parameter.default
    shown = "" if default in (None, False, (), "") or callable(default) else f"`{default}`"
    shown = "required" if parameter.required else shown
    return f"`{given}`", shown, parameter.help or ""


def render_commands() -> str:
    """The whole page."""
    lines = [
        "# Commands\n",
        f"{MADE}\n",
        "Every command has `--help`. Options before the command: `--debug` shows tracebacks,",
        "`--version` prints the version. What the exit statuses mean is in",
        "[artifacts](artifacts.md#exit-status).",
    ]
    for words, command in walk_commands(typer.main.get_command(app)):
        lines.append(f"\n## {words}\n")
        lines.append(" ".join((command.help or "").split()) + "\n")
        if command.name == "stage":
            options = [
                (f"`{', '.join(one.option_strings) or one.dest.upper()}`", "", one.help or "")
                for one in stage_parser()._actions
            ]
        else:
            options = [describe_parameter(one) for one in command.params if one.name != "help"]
        if options:
            lines += ["| given | default | meaning |", "|---|---|---|"]
            lines += [
                "| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in options
            ]
    return "\n".join(lines) + "\n"


PAGES = {"configuration.md": render_configuration, "commands.md": render_commands}


def main() -> int:
    """Write the pages, or with ``--check`` say which are stale."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--check", action="store_true", help="write nothing; 1 if one is stale")
    check = words.parse_args().check
    stale = []
    for name, render in PAGES.items():
        path, text = FOLDER / name, render()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"docs/reference: {', '.join(stale)} stale; run `{COMMAND}`", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
