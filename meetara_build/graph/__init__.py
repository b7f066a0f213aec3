"""The steps of a build: each stage of each target, with its recipe, inputs and fingerprint.

Composing the configuration takes a second, so the result is kept below ``.meetara/`` and used again
while no file it came from has changed. This module imports nothing heavy: Snakemake, ``plan`` and
every job start here.
"""

import contextlib
import json
import os
import site
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from meetara_build.config.conf_files import list_conf
from meetara_build.config.overrides import NO_OVERRIDES, Overrides
from meetara_build.errors import ConfigError
from meetara_build.graph.stages import (
    ALL,
    BUNDLED,
    ENDS,
    NAMES,
    REPORT,
    Stage,
    row_of,
)
from meetara_build.outside import Json, parse_json
from meetara_build.project import CACHE, locate
from meetara_build.store.digests import state
from meetara_build.store.manifest import MadeFrom, Place, Slice, digest_json, write_cache

WARM_START = "warm_start"
"""The source that is a file of the store: the adapter that another begins from."""
SAMPLE = "sample"
"""The source that is the pinned sample of training records."""
START = "start"
"""The input that is a base's common start."""
OBSERVER, JOINT = "observer/", "joint/"
"""How the names of a training's further sources and inputs begin: agents that watch it, and
neighbours' records."""
READINGS = 5
"""How often conf/ is read anew where it changes meanwhile."""
OVERRIDDEN, MOST_OVERRIDDEN = "overridden", 8
"""Where graphs are kept for command lines with overrides, and how many."""


class ContextSettings(TypedDict):
    """build.yaml's ``context``."""

    url: str | None
    keep_samples_days: float
    keep_days: float


class Changed(TypedDict):
    """A key that does not have build.yaml's value: see ``config.resolve.Change``."""

    key: str
    value: Json
    below: Json
    path: str
    agent: str | None
    reason: str | None


class Input(NamedTuple):
    """An input artifact: which stage of which target, and which of its files are read."""

    stage: str
    target: str
    reads: tuple[str, ...] = ("*",)

    @property
    def place(self) -> Place:
        """Where it lies below the root."""
        return Place(row_of(self.stage, self.target).place(self.target))


class Step(NamedTuple):
    """One stage of one target; with ``slots`` above 1 it shares a device with so many of its
    kind."""

    stage: str
    target: str
    fingerprint: str
    made_from: MadeFrom
    inputs: dict[str, Input]
    sources: dict[str, str]
    settings: dict[str, Json]
    threads: int
    memory_mb: int
    gpus: int
    slots: int
    parameters: int
    keep: bool

    @property
    def recipe(self) -> Slice:
        """The slice of the configuration that decides the stage's bytes; ``settings`` are read too,
        and decide none."""
        return self.made_from["recipe"]

    @property
    def told(self) -> Slice:
        """What the stage is told: its recipe, and the settings that decide no byte."""
        return {**self.recipe, **self.settings}

    @property
    def name(self) -> str:
        """``nutrition/adapter``: how a step is called in messages."""
        return f"{self.target}/{self.stage}"

    @property
    def reference(self) -> str:
        """The name as one word that can be a file's."""
        return f"{self.target.replace('/', '-')}-{self.stage}"

    @property
    def row(self) -> Stage:
        """Its stage's row of the table."""
        return row_of(self.stage, self.target)

    @property
    def place(self) -> Place:
        """Where its artifact lies below the root."""
        return Place(self.row.place(self.target))

    @property
    def log(self) -> str:
        """Where its log lies below the root, without an ending."""
        return self.row.log(self.target)

    @property
    def files(self) -> tuple[str, ...]:
        """The files in its folder that its rule declares."""
        return self.row.list_files(self.target.rpartition("/")[2], self.recipe)


class Graph(NamedTuple):
    """All steps of a project, each after those it needs.

    ``machines`` names each domain's hardware file, the bases' under ``""``; ``priorities`` has the
    domains whose priority is not zero; ``changes`` has the keys that do not have build.yaml's
    value; ``bundles`` has the domains of those that can be built, by target, and ``refused`` why
    others cannot; ``overrides`` are the command line's, which every other process of a build is to
    be handed.
    """

    project: Path
    root: Path
    store: Path
    context: ContextSettings
    domains: list[str]
    memory_mb: int
    gpus: int
    slots: int
    machines: dict[str, str]
    priorities: dict[str, int]
    changes: dict[str, list[Changed]]
    bundles: dict[str, list[str]]
    refused: dict[str, str]
    steps: dict[tuple[str, str], Step]
    overrides: Overrides = NO_OVERRIDES

    def step(self, stage: str, target: str) -> Step:
        """One step.

        Raises:
            ConfigError: there is no such stage, or no such domain in this build.
        """
        if (stage, target) not in self.steps:
            if stage not in NAMES:
                raise ConfigError(f"unknown stage '{stage}'; known: {', '.join(NAMES)}")
            from meetara_build.errors import nearest

            targets = sorted({target for name, target in self.steps if name == stage})
            raise ConfigError(
                f"'{target}' has no stage '{stage}' in this build{nearest(target, targets)}"
            )
        return self.steps[stage, target]

    def hardware(self, target: str) -> str:
        """The name of the machine's file that a target is built for."""
        return self.machines.get(target, self.machines[""])

    def ends(self, targets: Iterable[str] = (), *, bundles: bool = False) -> list[tuple[str, str]]:
        """The last steps of a build of these domains and bundles; of all domains, with the report
        over all, if none is named. With ``bundles`` also those of every bundle."""
        chosen = list(targets)
        domains = [name for name in chosen if name not in self.bundles]
        of_domains = [
            (row.name, target)
            for row in ENDS
            if not (chosen and row.of == ALL)
            for target in ([REPORT] if row.of == ALL else domains if chosen else self.domains)
        ]
        asked = self.bundles if bundles else [name for name in chosen if name in self.bundles]
        return of_domains + [(row.name, name) for row in BUNDLED for name in asked]

    def members(self, targets: Iterable[str]) -> list[str]:
        """The domains among these targets, and those of the bundles among them; each once."""
        found = (one for name in targets for one in self.bundles.get(name, [name]))
        return list(dict.fromkeys(found))

    def above(self, wanted: Iterable[tuple[str, str]]) -> list[Step]:
        """The wanted steps and all that they need, each after those it needs."""
        needed: set[tuple[str, str]] = set()
        waiting = list(wanted)
        while waiting:
            key = waiting.pop()
            if key not in needed:
                needed.add(key)
                waiting += [
                    (given.stage, given.target) for given in self.step(*key).inputs.values()
                ]
        return [step for key, step in self.steps.items() if key in needed]


def work_folder(graph: Graph, step: Step, key: str) -> Path:
    """Where a piece of work is done, and where it leaves what lets it go on after a kill."""
    return graph.root / ".work" / f"{step.reference}-{key[:16]}"


def states_file(graph: Graph, step: Step) -> Path:
    """Where it is kept how a step's files looked when they were last read."""
    return graph.project / CACHE / "states" / f"{step.reference}.json"


def load(project: Path, hardware: str | None = None, overrides: Overrides = NO_OVERRIDES) -> Graph:
    """The graph of a project, from the cache where nothing it came from has changed.

    ``hardware`` is the machine that a profile names; ``overrides`` are the command line's.

    Raises:
        ConfigError: anything below conf/ is wrong.
    """
    kept_in = _find_cache(project, hardware, overrides)
    try:
        kept = parse_json(kept_in.read_bytes())
        now = _signature(project, kept["sources"], kept["environment"])
        if now == kept["signature"]:
            return _unpack(project, kept, overrides)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    from meetara_build.graph.compose import compose_graph

    for _ in range(READINGS):  # several may accept decisions at the same moment
        signature = _signature(project, [])
        packed = compose_graph(project, hardware, overrides)
        if _signature(project, []) == signature:
            break
    else:
        raise ConfigError(f"{project / 'conf'}: changed while it was read; run the command again")
    if is_outdated():
        warn_outdated()
    else:
        packed["signature"] = _signature(project, packed["sources"], packed["environment"])
        write_cache(kept_in, json.dumps(packed, sort_keys=True, ensure_ascii=False))
        _forget_oldest(project / CACHE / OVERRIDDEN)
    return _unpack(project, packed, overrides)


def _find_cache(project: Path, hardware: str | None, overrides: Overrides) -> Path:
    """Where a graph is kept."""
    name = f"graph-{hardware or 'default'}"
    if not overrides.words:
        return project / CACHE / f"{name}.json"
    return project / CACHE / OVERRIDDEN / f"{name}-{overrides.digest()}.json"


def _forget_oldest(folder: Path) -> None:
    """Of the graphs with overrides keep the last few: no one asks for most of them again."""
    with contextlib.suppress(OSError):  # another command may be at it too
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-MOST_OVERRIDDEN]:
            path.unlink()


@cache
def warn_outdated() -> None:
    """Say once that this process runs code that has been replaced."""
    print(
        "meetara-build: the tool or a library was changed while this runs; restart it to use what "
        "is new",
        file=sys.stderr,
    )


def _unpack(project: Path, packed: dict[str, Any], overrides: Overrides) -> Graph:
    steps = {}
    for fields in packed["steps"]:
        inputs = {
            name: Input(stage, target, tuple(reads))
            for name, (stage, target, reads) in fields["inputs"].items()
        }
        step = Step(**fields)._replace(inputs=inputs)
        steps[step.stage, step.target] = step
    return Graph(
        project,
        locate(project, packed["root"]),
        locate(project, packed["store"]),
        packed["context"],
        packed["domains"],
        packed["memory_mb"],
        packed["gpus"],
        packed["slots"],
        packed["machines"],
        packed["priorities"],
        packed["changes"],
        packed["bundles"],
        packed["refused"],
        steps,
        overrides,
    )


def is_outdated() -> bool:
    """Whether the tool's code or a library is another now than when this process began: what it
    works out is not to be kept."""
    return tool_state() != TOOL


def _signature(
    project: Path, sources: Iterable[str], environment: Iterable[str] = ()
) -> list[object]:
    """State of everything that the graph is made from: configuration, sources, this package,
    installed libraries.

    Of each path also where it leads: another link, to files that look the same, is a change. Of
    environment variables only a digest is kept.
    """
    folders, files = list_conf(project / "conf")
    paths = [[path, os.path.realpath(path)] for path in (*folders, *sources)]
    variables = [[name, digest_json(os.environ.get(name))] for name in environment]
    seen = [[file, *_seen(file)] for file in (*files, *sources)]
    return [*paths, *seen, *variables, *TOOL]


def tool_state() -> list[list[object]]:
    """State of this package and of the installed libraries, the user's own among them."""
    package = str(Path(__file__).parent.parent)
    files = sorted(
        os.path.join(at, name)
        for at, _, names in os.walk(package)
        for name in names
        if name.endswith(".py")
    )
    folders = [
        *site.getsitepackages(),
        *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    ]
    libraries: list[list[object]] = [
        [path, os.stat(path).st_mtime_ns] for path in folders if os.path.isdir(path)
    ]
    return [[file, *_seen(file)] for file in files] + libraries


def _seen(file: str) -> list[object]:
    try:
        return state(file)
    except OSError:
        return []


TOOL = tool_state()
"""The tool that this process runs, whatever lies in its place later."""
