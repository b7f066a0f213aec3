"""The graph from the configuration: every step, with its recipe, inputs, and all that decides its bytes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from meetara_build.config.overrides import Overrides
from meetara_build.config.plugins import plugin_files
from meetara_build.config.resolve import Common, Configuration, Resolved
from meetara_build.config.yaml_files import read_lines
from meetara_build.errors import ConfigError, nearest
from meetara_build.graph import (
    JOINT,
    OBSERVER,
    REPORT,
    TOKENIZER,
    TOOL,
    WARM_START,
    Input,
    Step,
    is_outdated,
    recipes,
)
from meetara_build.graph.fingerprint import (
    agent_digests,
    code_digests,
    fingerprint,
    library_versions,
)
from meetara_build.outside import parse_json
from meetara_build.project import CACHE, written_path
from meetara_build.setup.originals import ORIGINAL
from meetara_build.store.digests import Digests, state
from meetara_build.store.memo import Memo

LONGEST_HEADER = 100_000_000
"""Bytes: what the format allows."""


class _Deciding:
    """What decides bytes besides the configuration; what was found before is used again while no file of it has changed."""

    def __init__(self, project: Path) -> None:
        self.digests = Digests(project / CACHE / "digests.json")
        self.memo = Memo(project / CACHE / "code.json", TOOL)

    def parts(self, stage: str, recipe: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
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
                f"{error.filename or path}: cannot be read ({error.strerror}); mend its rights, or name another source"
            ) from None

    def save(self) -> None:
        """Keep what was found for the next time."""
        self.digests.save()
        if not is_outdated():  # of which code the digests are, nobody knows then
            self.memo.save()


def composed(project: Path, hardware: str | None, overrides: Overrides) -> dict[str, Any]:
    """The graph as JSON values, as the cache keeps it.

    Raises:
        ConfigError: anything below conf/ is wrong.
    """
    configuration = Configuration(project, hardware, overrides)
    domains = configuration.selected()
    if not domains:
        raise ConfigError(
            f"{project / 'conf' / 'domain'}: no domain yet; add one with `meetara-build add-domain NAME --from FILE`"
        )
    resolved = {name: configuration.resolve(name) for name in configuration.domains}
    _refuse_cycles(resolved)
    deciding = _Deciding(project)
    steps = list(_steps(configuration, [resolved[name] for name in domains], resolved, deciding))
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
        "machines": {"": configuration.defaults["hardware"]}
        | {name: resolved[name].hardware_name for name in domains},
        "priorities": {name: found for name in domains if (found := resolved[name].build.priority)},
        "changes": {
            name: [change._asdict() for change in found] for name, found in changes.items()
        },
        "steps": [step._asdict() for step in steps],
        "sources": sorted(deciding.digests.used),
        "environment": sorted(configuration.environment),
    }


def _steps(
    configuration: Configuration,
    built: list[Resolved],
    known: dict[str, Resolved],
    deciding: _Deciding,
) -> Iterator[Step]:
    """Every step, in an order in which each follows those it needs."""
    for name in dict.fromkeys(item.base_name for item in built):
        yield from _base_steps(configuration, configuration.common(name), known, deciding)
    chains = [list(_domain_steps(configuration, item, deciding)) for item in built]
    yield from (chain[0] for chain in chains)  # a domain may learn its neighbours' records too
    for chain in chains:
        yield from chain[1:]
    yield _report_step(built, deciding)


def _base_steps(
    configuration: Configuration, item: Common, known: dict[str, Resolved], deciding: _Deciding
) -> Iterator[Step]:
    name, base = item.base_name, item.base
    target, path = f"base/{name}", configuration.conf / "base" / f"{item.base_name}.yaml"
    inputs: dict[str, Input] = {}
    sources: dict[str, str] = {}
    originals: dict[str, str] = {}
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
        recipe = recipes.corpus(
            base, {domain: (one.domain, one.build) for domain, one in taught.items()}
        )
        yield _step("corpus", target, recipe, {}, files, item, deciding)
        inputs["corpus"] = Input("corpus", target, ("corpus.jsonl",))
    elif base.folder is not None:
        folder = written_path(configuration.conf.parent, base.folder)
        if not folder.is_dir():
            raise ConfigError(
                f"{path}: folder: '{base.folder}' is no folder (looked at {folder}); mend the path, or use hub_id"
            )
        _refuse_unreadable(folder, f"{path}: folder: '{base.folder}'")
        sources["folder"] = str(folder)
    elif base.gguf is not None and base.gguf.path is not None:
        file = written_path(configuration.conf.parent, base.gguf.path)
        if not file.is_file():
            raise ConfigError(
                f"{path}: gguf: '{base.gguf.path}' is no file (looked at {file}); mend the path, or name a package or hub_id"
            )
        originals[ORIGINAL] = str(file)
    base_recipe = recipes.base(name, base, item.build)
    yield _step("base", target, base_recipe, inputs, {**sources, **originals}, item, deciding)
    made = {"merged": Input("base", target), "base": Input("base", target)}
    yield _step(
        "gguf",
        target,
        recipes.base_gguf(name, base, item.build, item.hardware),
        made,
        originals,
        item,
        deciding,
    )


def _domain_steps(
    configuration: Configuration, item: Resolved, deciding: _Deciding
) -> Iterator[Step]:
    name, build = item.name, item.build
    base = Input("base", f"base/{item.base_name}")
    tokenizer = Input("base", f"base/{item.base_name}", TOKENIZER)
    base_files = Input("base", f"base/{item.base_name}", (*TOKENIZER, "origin.json"))
    base_gguf = Input("gguf", f"base/{item.base_name}", ("*.gguf",))
    weights, training = (
        Input("adapter", name, ("adapter_*",)),
        Input("adapter", name, ("training.json",)),
    )
    models = tuple(f"{name}-{quant}.gguf" for quant in dict.fromkeys(["F16", *item.domain.quants]))

    def dataset(*reads: str) -> Input:
        return Input("dataset", name, reads)

    def step(
        stage: str,
        recipe: dict[str, Any],
        inputs: dict[str, Input],
        sources: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Step:
        return _step(stage, name, recipe, inputs, sources or {}, item, deciding, settings)

    slices = {
        "base": recipes.base(item.base_name, item.base, configuration.common(item.base_name).build),
        "dataset": recipes.dataset(name, item.domain, build),
        "adapter": recipes.adapter(name, build, item.hardware),
        "merge": recipes.merge(name, build, item.hardware),
    }
    yield step(
        "dataset", slices["dataset"], {"base": tokenizer}, _source_paths(configuration, item)
    )
    settings = recipes.adapter_settings(build)
    learnt = dataset("train.jsonl", "validation.jsonl")
    joint = _joint(configuration, item)
    # A neighbour's record may be held out here, which only the test records show.
    read = dataset(*learnt.reads, "test.jsonl") if joint else learnt
    # Nothing of the base's own file is read, but a base whose proof has failed is not trained on.
    inputs = {"base": base, "base_gguf": Input("gguf", base.target, ()), "dataset": read, **joint}
    files = _warm_start(configuration, item) | _observers(configuration, item)
    yield step("adapter", slices["adapter"], inputs, files, settings)
    yield step("merge", slices["merge"], {"base": base, "adapter": weights, "dataset": learnt})
    recipe = recipes.gguf(
        name, item.base_name, item.base, item.domain, build, item.hardware, slices
    )
    inputs = {
        "merged": Input("merge", name),
        "adapter": weights,
        "base": base,
        "base_gguf": base_gguf,
    }
    yield step("gguf", recipe, {**inputs, "dataset": dataset("train.jsonl")})
    recipe = recipes.evaluate(name, item.base_name, item.domain, build, item.hardware)
    inputs = {"gguf": Input("gguf", name, models), "base_gguf": base_gguf, "base": tokenizer}
    yield step("evaluate", recipe, {**inputs, "dataset": dataset("test.jsonl")})
    recipe = recipes.package(name, item.base_name, item.base, item.domain, build)
    inputs = {
        "gguf": Input("gguf", name, ("*.gguf",)),
        "evaluation": Input("evaluate", name),
        "adapter": training,
    }
    yield step("package", recipe, {**inputs, "dataset": dataset("card.json"), "base": base_files})


def _report_step(built: list[Resolved], deciding: _Deciding) -> Step:
    inputs = {}
    for item in built:
        inputs[f"{item.name}/training"] = Input("adapter", item.name, ("training.json",))
        inputs[f"{item.name}/evaluation"] = Input("evaluate", item.name)
        inputs[f"{item.name}/dataset"] = Input("dataset", item.name, ("train.jsonl",))
    recipe = recipes.report({item.name: (item.domain, item.build) for item in built})
    return _step("report", REPORT, recipe, inputs, {}, built[0], deciding)


def _step(
    stage: str,
    target: str,
    recipe: dict[str, Any],
    inputs: dict[str, Input],
    sources: dict[str, str],
    item: Resolved | Common,
    deciding: _Deciding,
    settings: dict[str, Any] | None = None,
) -> Step:
    parts = deciding.parts(stage, recipe, sources)
    uses_gpu = item.hardware.device == "cuda" and stage in ("base", "adapter")
    return Step(
        stage,
        target,
        fingerprint(stage, parts),
        parts,
        inputs,
        sources,
        settings or {},
        threads=recipe.get("threads", 1),
        memory_mb=_memory_mb(stage, item.base.parameters),
        gpus=int(uses_gpu),
        parameters=item.base.parameters,
        keep=stage != "merge" or item.build.keep_merged,
    )


def _memory_mb(stage: str, parameters: int) -> int:
    """What a job is expected to need: Python with its libraries, and some copies of the float32 weights."""
    copies = {"base": 4, "adapter": 3, "merge": 3, "gguf": 3, "evaluate": 1.5}.get(stage, 0)
    return int(600 + copies * 4 * parameters / 1e6)


def _warm_start(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """The store's file that a domain's adapter begins from."""
    if item.build.training.warm_start is None:
        return {}
    domain, _, digest = item.build.training.warm_start.partition("@")
    path = _set_in(item, "training.warm_start")
    store = configuration.build.store or f"{configuration.build.root}/store"
    blob = written_path(configuration.conf.parent, store) / "blobs" / digest[:2] / digest
    if not blob.exists():
        raise ConfigError(
            f"{path}: training.warm_start: the store has no adapter {digest[:12]}… of {domain}; build {domain}, and pin what "
            f"`meetara-build explain {domain}/adapter` shows, or remove the key"
        )
    rank, own = _rank(blob), item.build.lora.rank
    if rank not in (None, own):
        raise ConfigError(
            f"{path}: training.warm_start: that adapter of {domain} has rank {rank}, and lora.rank is {own} here; make them the same"
        )
    return {WARM_START: str(blob)}


def _rank(weights: Path) -> int | None:
    """The rank of an adapter, by the header of its safetensors file; None where it does not say, which training then refuses."""
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(length, LONGEST_HEADER)))
        return next(
            (
                int(given["shape"][0])
                for name, given in header.items()
                if name.endswith("lora_A.weight")
            ),
            None,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _set_in(item: Resolved, key: str) -> str:
    """The file that sets a key for a domain."""
    return next((change.path for change in item.changes if change.key == key), "conf/build.yaml")


def check_resolved(configuration: Configuration, known: dict[str, Resolved], name: str) -> None:
    """Refuse what a domain's own keys do not show to be wrong: files, domains and agents that are not there, circles.

    Raises:
        ConfigError: naming the file and the key.
    """
    item = known[name]
    _warm_start(configuration, item)
    _joint(configuration, item)
    _observers(configuration, item)
    _refuse_cycles(known)


def _joint(configuration: Configuration, item: Resolved) -> dict[str, Input]:
    """The neighbours whose training records a domain learns too."""
    found, built = {}, configuration.selected()
    for name in item.build.training.joint:
        if name == item.name or name not in built:
            fault = "is the domain itself" if name == item.name else "is no domain of this build"
            known = [other for other in built if other != item.name]
            raise ConfigError(
                f"{_set_in(item, 'training.joint')}: training.joint: '{name}' {fault}{nearest(name, known)}"
            )
        found[f"{JOINT}{name}"] = Input("dataset", name, ("train.jsonl",))
    return found


def _observers(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """The files of the agents that watch a domain's training."""
    if not item.build.training.observers:
        return {}
    files = plugin_files(configuration.conf.parent)
    for name in item.build.training.observers:
        if name not in files:
            raise ConfigError(
                f"{_set_in(item, 'training.observers')}: training.observers: there is no agent '{name}'{nearest(name, list(files))}"
            )
    return {f"{OBSERVER}{name}": str(files[name]) for name in item.build.training.observers}


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
                f"conf/domain/{name}.yaml: training.warm_start goes round in a circle: {shown}; remove one of them"
            )


def _source_paths(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """Absolute paths of a domain's source files, by the names the dataset stage knows them by."""
    found = {}
    path = configuration.domains[item.name]
    for index, source in enumerate(item.domain.sources):
        written = source.path or source.hub
        assert written is not None
        file = written_path(path.parent, written)
        if file.exists():
            _refuse_unreadable(file, f"{path}: sources: '{written}'")
            found[f"source_{index}"] = str(file)
        elif source.hub is not None and source.revision is None:
            raise ConfigError(
                f"{_source_line(path, index)}: source '{written}' of a hub is not pinned; add `revision:` with a commit's 40 hex "
                "digits, as the hub lists them under Files"
            )
        elif source.path is not None:
            raise ConfigError(
                f"{_source_line(path, index)}: source '{written}' is not there (looked at {file}); mend the path, or put the file there"
            )
    return found


def _source_line(path: Path, index: int) -> str:
    lines = read_lines(path)
    line = lines.get(("sources", index)) or lines.get(("domain", "sources", index), 1)
    return f"{path}:{line}"


def _refuse_unreadable(path: Path, where: str) -> None:
    """What is neither a file nor a folder of files, or a folder without end, would be read for ever."""
    try:
        state(path)
    except OSError as error:
        raise ConfigError(
            f"{where} leads to {error.filename}: {error.strerror}; name a file, or a folder of data alone"
        ) from None
