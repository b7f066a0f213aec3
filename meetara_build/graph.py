"""The steps of a build: each stage of each target, with its recipe, inputs and fingerprint.

Composing the configuration takes a second, so the result is kept below ``.meetara/`` and used again while no file it came
from has changed. This module imports nothing heavy: Snakemake, ``plan`` and every job start here.
"""

import json
import os
import site
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from meetara_build.artifact import Place, place, write_text
from meetara_build.digests import Digests, state
from meetara_build.errors import ConfigError

if TYPE_CHECKING:
    from meetara_build.resolve import Common, Configuration, Resolved

STAGES = ("corpus", "base", "dataset", "adapter", "merge", "gguf", "evaluate", "package", "report")
TOKENIZER = ("config.json", "tokenizer*", "special_tokens_map.json", "*.jinja")
"""The files of a base that decide its token ids."""

CACHE = ".meetara"
REPORT = "report"
"""The target of the one step that looks at all domains."""


class Input(NamedTuple):
    """An input artifact: which stage of which target, and which of its files are read."""

    stage: str
    target: str
    reads: tuple[str, ...] = ("*",)

    @property
    def place(self) -> Place:
        """Where it lies below the root."""
        return place(self.stage, self.target)


class Step(NamedTuple):
    """One stage of one target."""

    stage: str
    target: str
    fingerprint: str
    made_from: dict[str, Any]
    inputs: dict[str, Input]
    sources: dict[str, str]
    settings: dict[str, Any]
    threads: int
    memory_mb: int
    gpus: int
    parameters: int
    keep: bool

    @property
    def recipe(self) -> dict[str, Any]:
        """The slice of the configuration that decides the stage's bytes; ``settings`` are read too, and decide none."""
        recipe: dict[str, Any] = self.made_from["recipe"]
        return recipe

    @property
    def name(self) -> str:
        """``nutrition/adapter``: how a step is called in messages."""
        return f"{self.target}/{self.stage}"

    @property
    def reference(self) -> str:
        """The name as one word that can be a file's."""
        return f"{self.target.replace('/', '-')}-{self.stage}"

    @property
    def place(self) -> Place:
        """Where its artifact lies below the root."""
        return place(self.stage, self.target)


class Graph(NamedTuple):
    """All steps of a project, each after those it needs.

    ``machines`` names each domain's hardware file, the bases' under ``""``; ``changes`` has the keys that do not have
    build.yaml's value.
    """

    project: Path
    root: Path
    store: Path
    domains: list[str]
    memory_mb: int
    gpus: int
    machines: dict[str, str]
    changes: dict[str, list[dict[str, Any]]]
    steps: dict[tuple[str, str], Step]

    def step(self, stage: str, target: str) -> Step:
        """One step.

        Raises:
            ConfigError: there is no such stage, or no such domain in this build.
        """
        if (stage, target) not in self.steps:
            if stage not in STAGES:
                raise ConfigError(f"unknown stage '{stage}'; known: {', '.join(STAGES)}")
            from meetara_build.nearest import nearest

            targets = sorted({target for name, target in self.steps if name == stage})
            raise ConfigError(f"'{target}' has no stage '{stage}' in this build{nearest(target, targets)}")
        return self.steps[stage, target]

    def hardware(self, target: str) -> str:
        """The name of the machine's file that a target is built for."""
        return self.machines.get(target, self.machines[""])

    def ends(self, domains: Iterable[str] = ()) -> list[tuple[str, str]]:
        """The last steps of a build of these domains; of all of them, with the report over all, if none is named."""
        chosen = list(domains)
        return [("package", domain) for domain in chosen or self.domains] + ([] if chosen else [("report", REPORT)])

    def above(self, wanted: Iterable[tuple[str, str]]) -> list[Step]:
        """The wanted steps and all that they need, each after those it needs."""
        needed: set[tuple[str, str]] = set()
        waiting = list(wanted)
        while waiting:
            key = waiting.pop()
            if key not in needed:
                needed.add(key)
                waiting += [(given.stage, given.target) for given in self.step(*key).inputs.values()]
        return [step for key, step in self.steps.items() if key in needed]


def work_folder(graph: Graph, step: Step, key: str) -> Path:
    """Where a piece of work is done, and where it leaves what lets it go on after a kill."""
    return graph.root / ".work" / f"{step.reference}-{key[:16]}"


def states_file(graph: Graph, step: Step) -> Path:
    """Where it is kept how a step's files looked when they were last read."""
    return graph.project / CACHE / "states" / f"{step.reference}.json"


def find_project(start: Path | None = None) -> Path:
    """The folder with ``conf/build.yaml``: this one or the nearest above it.

    Raises:
        ConfigError: there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "conf" / "build.yaml").exists():
            return folder
    raise ConfigError(
        f"{here}: no conf/build.yaml here or above; go to a project, or make one: `meetara-build init NAME`"
    )


def load(project: Path, hardware: str | None = None) -> Graph:
    """The graph of a project, from the cache where nothing it came from has changed.

    Raises:
        ConfigError: anything below conf/ is wrong.
    """
    cache = project / CACHE / f"graph-{hardware or 'default'}.json"
    signature = _signature(project, [])
    try:
        kept = json.loads(cache.read_bytes())
        if _signature(project, kept["sources"]) == kept["signature"]:
            return _unpack(project, kept)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    packed = _build(project, hardware)
    if _signature(project, []) != signature:
        raise ConfigError(
            f"{project / 'conf'}: changed while it was read (or the tool's own code was); run the command again"
        )
    packed["signature"] = _signature(project, packed["sources"])
    write_text(cache, json.dumps(packed, sort_keys=True, ensure_ascii=False))
    return _unpack(project, packed)


def _build(project: Path, hardware: str | None) -> dict[str, Any]:
    from meetara_build.resolve import Configuration

    configuration = Configuration(project, hardware)
    domains = configuration.selected()
    if not domains:
        raise ConfigError(
            f"{project / 'conf' / 'domain'}: no domain yet; add one with `meetara-build add-domain NAME --from FILE`"
        )
    resolved = {name: configuration.resolve(name) for name in configuration.domains}
    digests = Digests(project / CACHE / "digests.json")
    steps = list(_steps(configuration, [resolved[name] for name in domains], resolved, digests))
    digests.save()
    build = configuration.build
    machine = resolved[domains[0]].hardware
    return {
        "root": build.root,
        "store": build.store or f"{build.root}/store",
        "domains": domains,
        "memory_mb": int(machine.memory_gb * 1000),
        "gpus": machine.gpus,
        "machines": {"": configuration.defaults["hardware"]} | {name: resolved[name].hardware_name for name in domains},
        "changes": {name: [change._asdict() for change in resolved[name].changes] for name in domains},
        "steps": [step._asdict() for step in steps],
        "sources": sorted(digests.used),
    }


def _unpack(project: Path, packed: dict[str, Any]) -> Graph:
    steps = {}
    for fields in packed["steps"]:
        inputs = {name: Input(stage, target, tuple(reads)) for name, (stage, target, reads) in fields["inputs"].items()}
        steps[fields["stage"], fields["target"]] = Step(**{**fields, "inputs": inputs})
    return Graph(
        project, _resolved(project, packed["root"]), _resolved(project, packed["store"]), packed["domains"],
        packed["memory_mb"], packed["gpus"], packed["machines"], packed["changes"], steps,
    )  # fmt: skip


def _steps(
    configuration: "Configuration", built: list["Resolved"], known: dict[str, "Resolved"], digests: Digests
) -> Iterator[Step]:
    """Every step, in an order in which each follows those it needs."""
    for name in dict.fromkeys(item.base_name for item in built):
        yield from _base_steps(configuration, configuration.common(name), known, digests)
    for item in built:
        yield from _domain_steps(configuration, item, digests)
    yield _report_step(built, digests)


def _base_steps(
    configuration: "Configuration", item: "Common", known: dict[str, "Resolved"], digests: Digests
) -> Iterator[Step]:
    from meetara_build import recipes

    name, base = item.base_name, item.base
    target, path = f"base/{name}", configuration.conf / "base" / f"{item.base_name}.yaml"
    inputs, sources = {}, {}
    if base.pretraining is not None:
        for domain in base.pretraining.domains:
            if domain not in known:
                raise ConfigError(
                    f"{path}: pretraining.domains: no conf/domain/{domain}.yaml; remove the name, or add the file"
                )
        taught = {domain: known[domain] for domain in sorted(base.pretraining.domains)}
        files = {
            f"{domain}/{key}": source
            for domain, one in taught.items()
            for key, source in _source_paths(configuration, one).items()
        }
        recipe = recipes.corpus(base, {domain: (one.domain, one.build) for domain, one in taught.items()})
        yield _step("corpus", target, recipe, {}, files, item, digests)
        inputs["corpus"] = Input("corpus", target)
    elif base.folder is not None:
        folder = _resolved(configuration.conf.parent, base.folder)
        if not folder.is_dir():
            raise ConfigError(
                f"{path}: folder: '{base.folder}' is no folder (looked at {folder}); mend the path, or use hub_id"
            )
        sources["folder"] = str(folder)
    yield _step("base", target, recipes.base(name, base, item.build), inputs, sources, item, digests)
    recipe = recipes.base_gguf(name, base, item.build, item.hardware)
    yield _step(
        "gguf", target, recipe, {"merged": Input("base", target), "base": Input("base", target)}, {}, item, digests
    )


def _domain_steps(configuration: "Configuration", item: "Resolved", digests: Digests) -> Iterator[Step]:
    from meetara_build import recipes

    name, build = item.name, item.build
    base = Input("base", f"base/{item.base_name}")
    tokenizer = Input("base", f"base/{item.base_name}", TOKENIZER)
    base_gguf = Input("gguf", f"base/{item.base_name}", ("*.gguf",))
    dataset, adapter = Input("dataset", name), Input("adapter", name)
    weights = Input("adapter", name, ("adapter_*",))
    merged, gguf, evaluation = Input("merge", name), Input("gguf", name), Input("evaluate", name)

    def step(
        stage: str,
        recipe: dict[str, Any],
        inputs: dict[str, Input],
        sources: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Step:
        return _step(stage, name, recipe, inputs, sources or {}, item, digests, settings)

    slices = {
        "base": recipes.base(item.base_name, item.base, build),
        "dataset": recipes.dataset(name, item.domain, build),
        "adapter": recipes.adapter(name, build, item.hardware),
        "merge": recipes.merge(name, build, item.hardware),
    }
    yield step("dataset", slices["dataset"], {"base": tokenizer}, _source_paths(configuration, item))
    settings = recipes.adapter_settings(build)
    yield step("adapter", slices["adapter"], {"base": base, "dataset": dataset}, settings=settings)
    yield step("merge", slices["merge"], {"base": base, "adapter": weights, "dataset": dataset})
    recipe = recipes.gguf(name, item.base_name, item.base, item.domain, build, item.hardware, slices)
    inputs = {"merged": merged, "adapter": weights, "base": base, "base_gguf": base_gguf, "dataset": dataset}
    yield step("gguf", recipe, inputs)
    recipe = recipes.evaluate(name, item.base_name, item.domain, build, item.hardware)
    yield step("evaluate", recipe, {"gguf": gguf, "base_gguf": base_gguf, "base": tokenizer, "dataset": dataset})
    recipe = recipes.package(name, item.base_name, item.base, item.domain, build)
    inputs = {"gguf": gguf, "evaluation": evaluation, "adapter": adapter, "dataset": dataset, "base": tokenizer}
    yield step("package", recipe, inputs)


def _report_step(built: list["Resolved"], digests: Digests) -> Step:
    inputs = {}
    for item in built:
        inputs[f"{item.name}/training"] = Input("adapter", item.name, ("training.json",))
        inputs[f"{item.name}/evaluation"] = Input("evaluate", item.name)
    recipe = {"domains": {item.name: item.domain.category for item in built}}
    return _step("report", REPORT, recipe, inputs, {}, built[0], digests)


def _step(
    stage: str,
    target: str,
    recipe: dict[str, Any],
    inputs: dict[str, Input],
    sources: dict[str, str],
    item: "Resolved | Common",
    digests: Digests,
    settings: dict[str, Any] | None = None,
) -> Step:
    from meetara_build.fingerprint import fingerprint, made_from

    parts = made_from(stage, recipe, {name: _digest(path, digests) for name, path in sources.items()})
    uses_gpu = item.hardware.device == "cuda" and stage in ("base", "adapter")
    return Step(
        stage, target, fingerprint(stage, parts), parts, inputs, sources, settings or {},
        threads=recipe.get("threads", 1),
        memory_mb=_memory_mb(stage, item.base.parameters),
        gpus=int(uses_gpu),
        parameters=item.base.parameters,
        keep=stage != "merge" or item.build.keep_merged,
    )  # fmt: skip


def _digest(path: str, digests: Digests) -> str:
    try:
        return digests.source(path)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(f"{path}: cannot be read ({reason}); mend its rights, or name another source") from None


def _memory_mb(stage: str, parameters: int) -> int:
    """What a job is expected to need: Python with its libraries, and some copies of the float32 weights."""
    copies = {"base": 4, "adapter": 3, "merge": 3, "gguf": 3, "evaluate": 1.5}.get(stage, 0)
    return int(600 + copies * 4 * parameters / 1e6)


def _source_paths(configuration: "Configuration", item: "Resolved") -> dict[str, str]:
    """Absolute paths of a domain's source files, by the names the dataset stage knows them by."""
    from meetara_build.yaml_files import read_lines

    found = {}
    path = configuration.domains[item.name]
    for index, source in enumerate(item.domain.sources):
        written = source.path or source.hub
        assert written is not None
        file = _resolved(path.parent, written)
        if file.exists():
            found[f"source_{index}"] = str(file)
        elif source.path is not None:
            line = read_lines(path).get(("sources", index), 1)
            raise ConfigError(
                f"{path}:{line}: source '{written}' is not there (looked at {file}); mend the path, or put the file there"
            )
    return found


def _resolved(folder: Path, written: str) -> Path:
    """A path as conf/ has it: from a folder, from ``~``, or absolute."""
    return (folder / os.path.expanduser(written)).resolve()  # noqa: PTH111  (pathlib's fails on a file called ~name)


def _signature(project: Path, sources: Iterable[str]) -> list[Any]:
    """State of everything that the graph is made from: configuration, sources, this package, installed libraries."""
    package = Path(__file__).parent
    files = [*_files(project / "conf", ".yaml"), *_files(package, ".py"), *sources]
    libraries = [[path, os.stat(path).st_mtime_ns] for path in site.getsitepackages() if os.path.isdir(path)]
    return [[file, *_seen(file)] for file in files] + libraries


def _seen(file: str) -> list[Any]:
    try:
        return state(file)
    except OSError:
        return []


def _files(folder: Path, suffix: str) -> list[str]:
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(suffix))
