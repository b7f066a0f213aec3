"""The graph from the configuration: every step, with its recipe, inputs, and all that decides its
bytes."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from meetara_build.config.accepted import read_accepted
from meetara_build.config.bundles import Bundled
from meetara_build.config.overrides import Overrides
from meetara_build.config.resolve import Common, Configuration, Resolved
from meetara_build.config.safety import read_safety
from meetara_build.errors import ConfigError
from meetara_build.graph import OBSERVER, START, TOOL, Input, Step, is_outdated
from meetara_build.graph.bundles import find_bundles
from meetara_build.graph.fingerprint import (
    agent_digests,
    code_digests,
    fingerprint,
    library_versions,
)
from meetara_build.graph.own_inputs import (
    MORE,
    find_base_types,
    find_importance,
    find_joint,
    find_observers,
    find_warm_start,
    taught_domains,
)
from meetara_build.graph.recipes import Reviewed, Scope, make_recipe
from meetara_build.graph.stages import (
    ABOVE_BASES,
    ABOVE_BUNDLES,
    ALL,
    BASE,
    BUNDLE,
    BUNDLED,
    DOMAIN,
    ENDS,
    MADE_BASE,
    REPORT,
    STAGES,
    Stage,
    refuse_reserved,
    row_of,
)
from meetara_build.project import CACHE
from meetara_build.store.digests import Digests
from meetara_build.store.manifest import MadeFrom, Slice
from meetara_build.store.memo import Memo


class _Deciding:
    """What decides bytes besides the configuration; what was found before is used again while no
    file of it has changed."""

    def __init__(self, project: Path) -> None:
        self.digests = Digests(project / CACHE / "digests.json")
        self.memo = Memo(project / CACHE / "code.json", TOOL)

    def parts(self, stage: str, recipe: Slice, sources: dict[str, str]) -> MadeFrom:
        """All that a stage run's result depends on, but for its inputs."""
        code, libraries = self.memo.get(
            stage, lambda: [code_digests(stage), library_versions(stage)]
        )
        found = {name: self._digest(path) for name, path in sources.items()}
        for name, path in sources.items():
            if name.startswith(OBSERVER):
                code = {
                    **code,
                    **self.memo.get(f"agent {found[name]}", partial(agent_digests, Path(path))),
                }
        return {"recipe": recipe, "code": code, "libraries": libraries, "sources": found}

    def _digest(self, path: str) -> str:
        try:
            return self.digests.source(path)
        except OSError as error:
            raise ConfigError(
                f"{error.filename or path}: cannot be read ({error.strerror}); mend its rights, or "
                "name another source"
            ) from None

    def save(self) -> None:
        """Keep what was found for the next time."""
        self.digests.save()
        if not is_outdated():  # of which code the digests are, nobody knows then
            self.memo.save()


def compose_graph(project: Path, hardware: str | None, overrides: Overrides) -> dict[str, Any]:
    """The graph as JSON values, as the cache keeps it.

    Raises:
        ConfigError: anything below conf/ is wrong.
    """
    configuration = Configuration(project, hardware, overrides)
    for name, path in configuration.domains.items():
        refuse_reserved(name, f"{path}: ")
    domains = configuration.list_selected()
    if not domains:
        raise ConfigError(
            f"{project / 'conf' / 'domain'}: no domain yet; add one with `meetara-build add-domain "
            "NAME --from FILE`"
        )
    resolved = {name: configuration.resolve(name) for name in configuration.domains}
    _refuse_cycles(resolved)
    deciding = _Deciding(project)
    built = {name: resolved[name] for name in domains}
    bundles = find_bundles(configuration, built)
    steps = _Steps(configuration, [*built.values()], resolved, deciding, bundles.found).made
    deciding.save()
    configuration.save()
    build = configuration.build
    changes = {name: item.changes for name, item in resolved.items()}
    changes |= {
        f"base/{name}": configuration.common(name).changes
        for name in {item.base_name for item in resolved.values()}
    }
    machine = resolved[domains[0]].hardware
    return {
        "root": build.root,
        "store": build.store or f"{build.root}/store",
        "context": build.context.model_dump(),
        "domains": domains,
        "memory_mb": int(machine.memory_gb * 1000),
        "gpus": machine.gpus,
        "slots": max(resolved[name].hardware.slots for name in domains),
        "machines": {"": configuration.defaults["hardware"]}
        | {name: resolved[name].hardware_name for name in domains},
        "priorities": {name: found for name in domains if (found := resolved[name].build.priority)},
        "changes": {
            name: [change._asdict() for change in found] for name, found in changes.items()
        },
        "bundles": {f"{ABOVE_BUNDLES}{one.name}": one.domains for one in bundles.found},
        "refused": {f"{ABOVE_BUNDLES}{name}": why for name, why in bundles.refused.items()},
        "steps": [step._asdict() for step in _in_order(steps)],
        "sources": sorted(deciding.digests.used),
        "environment": sorted(configuration.environment),
    }


class _Steps:
    """The steps of a build, by stage and target."""

    def __init__(
        self,
        configuration: Configuration,
        built: list[Resolved],
        known: dict[str, Resolved],
        deciding: _Deciding,
        bundles: Iterable[Bundled],
    ) -> None:
        self.configuration, self.known, self.deciding = configuration, known, deciding
        self.made: dict[tuple[str, str], Step] = {}
        reviewed = Reviewed(
            read_safety(configuration.conf.parent), read_accepted(configuration.conf)
        )
        for name in dict.fromkeys(item.base_name for item in built):
            self._add_base(configuration.common(name))
        for item in built:
            base = f"base/{item.base_name}"
            above = {"base": self.made["base", base].recipe}
            for row in _rows_of(DOMAIN):
                self._add(row, item.name, Scope(item, {}, above, reviewed))
                step = self.made[row.name, item.name]
                above[row.name] = step.recipe
                if START in step.inputs:
                    above[START] = self.made[START, base].recipe
        for row in _rows_of(ALL):
            self._add(row, REPORT, Scope(built[0], {item.name: item for item in built}))
        for bundle in bundles:
            members = {name: known[name] for name in bundle.domains}
            for row in _rows_of(BUNDLE):
                self._add(row, f"{ABOVE_BUNDLES}{bundle.name}", Scope(bundle, members))

    def _add_base(self, item: Common) -> None:
        taught = taught_domains(self.configuration, item, self.known)
        for row in _rows_of(BASE, *([MADE_BASE] if item.base.made_here else [])):
            self._add(row, f"base/{item.base_name}", Scope(item, taught))

    def _add(self, row: Stage, target: str, scope: Scope) -> None:
        item, inputs, sources = scope.item, _inputs(row, target, scope), dict[str, str]()
        for name in row.more:
            given = MORE[name](self.configuration, item, scope.each)
            inputs |= given.inputs
            sources |= given.sources
        made = make_recipe(row, scope)
        recipe, slots = made.model_dump(mode="json"), made.shared_slots
        settings = {name: recipe.pop(name) for name in row.settings}
        parts = self.deciding.parts(row.name, recipe, sources)
        self.made[row.name, target] = Step(
            row.name,
            target,
            fingerprint(row.name, parts),
            parts,
            inputs,
            sources,
            settings,
            # With slots the trainer computes: the job holds the base once, until that has it.
            threads=1 if slots > 1 else recipe.get("threads") or 1,
            # Python with its libraries, and some copies of the float32 weights.
            memory_mb=int(600 + (1 if slots > 1 else row.memory) * 4 * item.base.parameters / 1e6),
            gpus=int(row.device and item.hardware.device == "cuda"),
            slots=slots,
            parameters=item.base.parameters,
            keep=not row.temporary or item.build.keep_merged,
        )


def _rows_of(*kinds: str) -> list[Stage]:
    return [row for row in STAGES if row.of in kinds]


def _inputs(row: Stage, target: str, scope: Scope) -> dict[str, Input]:
    """The artifacts that a stage reads of a target; what looks at all domains, or at those of a
    bundle, reads each one's."""
    if row.of in (ALL, BUNDLE):
        return {
            f"{name}/{key}": Input(read.stage, name, read.files)
            for name in scope.each
            for key, read in row.inputs.items()
        }
    base = f"base/{scope.item.base_name}"
    return {
        key: Input(read.stage, base if read.is_of_base else target, read.files)
        for key, read in row.inputs.items()
        if not read.only or scope.item.build.gguf.files in read.only
    }


def _in_order(steps: Mapping[tuple[str, str], Step]) -> Iterator[Step]:
    """Each step after those it needs: a domain may learn its neighbours' records too. What bases or
    domains could have and no result needs is left out."""
    done: set[tuple[str, str]] = set()

    def visit(key: tuple[str, str]) -> Iterator[Step]:
        if key not in done:
            done.add(key)
            for given in steps[key].inputs.values():
                yield from visit((given.stage, given.target))
            yield steps[key]

    needed: set[tuple[str, str]] = set()
    waiting = [key for key in steps if row_of(*key) in (*ENDS, *BUNDLED)]
    while waiting:
        key = waiting.pop()
        if key not in needed:
            needed.add(key)
            waiting += [(given.stage, given.target) for given in steps[key].inputs.values()]
    for key in steps:
        if key in needed and not key[1].startswith(ABOVE_BASES):
            yield from visit(key)


def check_resolved(configuration: Configuration, known: dict[str, Resolved], name: str) -> None:
    """Refuse what a domain's own keys do not show to be wrong: files, domains and agents that are
    not there, circles.

    Raises:
        ConfigError: naming the file and the key.
    """
    item = known[name]
    find_warm_start(configuration, item)
    find_joint(configuration, item)
    find_observers(configuration, item)
    find_importance(configuration, item)
    find_base_types(configuration, item)
    _refuse_cycles(known)


def _refuse_cycles(known: dict[str, Resolved]) -> None:
    """Two domains that begin from each other could never be built from nothing.

    Raises:
        ConfigError: naming the circle.
    """
    above = {
        name: (item.build.training.warm_start or "").partition("@")[0]
        for name, item in known.items()
    }
    for name in known:
        circle = [name]
        while (following := above.get(circle[-1])) and following not in circle:
            circle.append(following)
        if following == name:
            shown = " → ".join([*circle, name])
            raise ConfigError(
                f"conf/domain/{name}.yaml: training.warm_start goes round in a circle: {shown}; "
                "remove one of them"
            )
