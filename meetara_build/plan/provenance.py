"""Which key of which file below conf/ a key of a recipe comes from: the way back from a changed
recipe to its cause.

The table of stages says it, which is the way there too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from meetara_build.config.keys import is_within
from meetara_build.config.overrides import COMMAND_LINE
from meetara_build.graph import Graph, Step
from meetara_build.graph.stages import Each, Fields


class Origin(NamedTuple):
    """A key and the file that sets it, as seen from the project; or "command line"."""

    file: str
    key: str


def origin(graph: Graph, step: Step, path: Sequence[str]) -> Origin | None:
    """Where a key of a step's recipe (its path within the recipe) comes from; None for what sums up
    the stages before."""
    return _origin(graph, step, step.row.fields, step.target, path)


def _origin(
    graph: Graph, step: Step, fields: Fields, target: str, path: Sequence[str]
) -> Origin | None:
    field, rest = fields.get(path[0]), path[1:]
    if isinstance(field, Each):
        if not rest:
            return Origin("conf/build.yaml", "domains")
        if not isinstance(field.of, tuple):
            return (
                _origin(graph, step, field.of, rest[0], rest[1:])
                if len(rest) > 1
                else Origin(f"conf/domain/{rest[0]}.yaml", "")
            )
        field, target, rest = field.of, rest[0], rest[1:]
    if field is None:  # a default: it is so because of what the target is
        return Origin(_own_file(target), "")
    if not field.key:
        return None
    group, _, key = field.key.partition(".")
    if field.by == "own_level":
        rest = [step.recipe["safety"], *rest]
    key = ".".join([key, *rest] if key else [])
    if group in ("base", "bundle"):
        return Origin(_own_file(_base_of(step) if group == "base" else step.target), key)
    if group == "safety":
        return Origin(f"conf/safety/{rest[0]}.yaml" if rest else "conf/safety", ".".join(rest[1:]))
    if group == "accepted":
        file = f"conf/accepted/{target}.yaml"
        return Origin(file if (graph.project / file).exists() else _own_file(target), "")
    file = _file(graph, target, group, key)
    own = file == COMMAND_LINE and group != "build"
    return Origin(file, f"{group}.{key}" if own else key)


def _own_file(target: str) -> str:
    return f"conf/{target}.yaml" if "/" in target else f"conf/domain/{target}.yaml"


def _file(graph: Graph, target: str, group: str, key: str) -> str:
    """The file that sets a key for a target: the last of the layers that does, else the file the
    key belongs to."""
    wanted = key if group == "build" else f"{group}.{key}"
    for change in graph.changes.get(target, []):
        # Whoever chooses a machine in a file sets what is in that machine's file; the command line
        # is no file.
        chosen = change["key"] == "hardware" and change["path"] != COMMAND_LINE
        if not chosen and is_within(wanted, [change["key"]]):
            return str(change["path"])
    if group == "hardware":
        return f"conf/hardware/{graph.hardware(target)}.yaml"
    return f"conf/domain/{target}.yaml" if group == "domain" else "conf/build.yaml"


def _base_of(step: Step) -> str:
    return next(
        (given.target for given in step.inputs.values() if given.target.startswith("base/")),
        step.target,
    )
