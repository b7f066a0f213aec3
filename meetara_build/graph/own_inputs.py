"""What only some targets have among their inputs and sources: records, files of one's own,
neighbours and agents.

The functions that ``stages`` names as ``more``: each gives a target's further inputs, and its
source files, by name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.config.bundles import Bundled
from meetara_build.config.plugins import plugin_files
from meetara_build.config.resolve import Common, Configuration, Resolved
from meetara_build.config.yaml_files import read_lines
from meetara_build.errors import ConfigError, nearest
from meetara_build.graph import JOINT, OBSERVER, SAMPLE, START, WARM_START, Input
from meetara_build.graph.recipes import uses_base_imatrix, uses_imatrix
from meetara_build.graph.stages import LEARNT, LORA, STAGE
from meetara_build.outside import parse_json
from meetara_build.project import expand_path
from meetara_build.setup.originals import ORIGINAL
from meetara_build.store.digests import state

LONGEST_HEADER = 100_000_000
"""Bytes: what the format allows."""


class Given(NamedTuple):
    """Further inputs, and absolute paths of source files, by the names that the stage knows them
    by."""

    inputs: Mapping[str, Input] = {}
    sources: Mapping[str, str] = {}


def taught_domains(
    configuration: Configuration, item: Common, known: Mapping[str, Resolved]
) -> dict[str, Resolved]:
    """The domains whose records a base is made from.

    Raises:
        ConfigError: one of them is not there.
    """
    taught = {}
    for domain in sorted(item.base.pretraining.domains if item.base.pretraining else ()):
        if domain not in known:
            raise ConfigError(
                f"{_base_file(configuration, item)}: pretraining.domains: no "
                f"conf/domain/{domain}.yaml; remove the name, or add the file"
            )
        taught[domain] = known[domain]
    return taught


def find_importance(configuration: Configuration, item: Resolved) -> dict[str, Input]:
    """The importance matrix of a domain's base, where a file of the domain is quantized by it.

    Raises:
        ConfigError: the domain says how it is made, which its base alone can.
    """
    own = item.build.gguf.imatrix.model_dump()
    base = configuration.common(item.base_name).build.gguf.imatrix.model_dump()
    for key in own:
        if key != "enabled" and own[key] != base[key]:
            whole = f"gguf.imatrix.{key}"
            raise ConfigError(
                f"{_set_in(item, whole)}: {whole}: the matrix is made once for all domains of "
                f"{item.base_name}; set the key in conf/build.yaml or conf/base/"
                f"{item.base_name}.yaml"
            )
    if not uses_imatrix(item):
        return {}
    _need_sample(configuration, item, "gguf.imatrix.enabled")
    return {
        "imatrix": Input("imatrix", f"base/{item.base_name}", STAGE["imatrix"].list_files("", {}))
    }


def find_base_types(configuration: Configuration, item: Resolved) -> dict[str, Input]:
    """The base's files that a domain's adapter is used on, where it has no files of its own.

    Raises:
        ConfigError: the base has no such type, or the domain says how it is quantized, which its
            base alone can, or a merged model is to be kept.
    """
    settings, name = item.build.gguf, item.base_name
    if settings.files != LORA:
        return {}
    common, key = configuration.common(name), "gguf.files"
    if item.build.keep_merged:
        raise ConfigError(
            f"{_set_in(item, key)}: {key}: lora makes no merged model to keep; set keep_merged to "
            f"false, or {key} to both"
        )
    of_base = common.build.gguf
    for whole, same in (
        ("gguf.tensor_types", settings.tensor_types == of_base.tensor_types),
        ("gguf.imatrix.enabled", settings.imatrix.enabled == of_base.imatrix.enabled),
    ):
        if not same:
            raise ConfigError(
                f"{_set_in(item, whole)}: {whole}: with {key}: lora the files are the base's; set "
                f"the key in conf/build.yaml or conf/base/{name}.yaml, or {key} to both"
            )
    if uses_base_imatrix(common):
        _need_sample(configuration, item, "gguf.imatrix.enabled")
    quants = [quant for quant in dict.fromkeys(item.domain.quants) if quant != "F16"]
    if missing := [quant for quant in quants if quant not in common.base.quants]:
        raise ConfigError(
            f"{_set_in(item, 'domain.quants')}: quants: with {key}: lora the files are the base's, "
            f"and {name} has no {' and no '.join(missing)}; add it to base.quants in "
            f"conf/base/{name}.yaml, or set {key} to both"
        )
    files, base = tuple(f"{name}-{quant}.gguf" for quant in quants), f"base/{name}"
    found = {"base_gguf": Input("gguf", base, ("*-F16.gguf",))}
    return found | ({"quantized": Input("quantize", base, files)} if files else {})


def _bundle_types(configuration: Configuration, item: Bundled, _: Mapping[str, Resolved]) -> Given:
    """The base's files that are in a bundle."""
    base, found = f"base/{item.base_name}", dict[str, Input]()
    files = {quant: f"{item.base_name}-{quant}.gguf" for quant in item.quants}
    if "F16" in files:
        found["base_gguf"] = Input("gguf", base, (files.pop("F16"),))
    if files:
        found["quantized"] = Input("quantize", base, tuple(files.values()))
    return Given(found)


def _base_imatrix(configuration: Configuration, item: Common, _: Mapping[str, Resolved]) -> Given:
    """The importance matrix of a base, where its own files are quantized by it."""
    if not uses_base_imatrix(item):
        return Given()
    return Given(
        {"imatrix": Input("imatrix", f"base/{item.base_name}", STAGE["imatrix"].list_files("", {}))}
    )


def _imatrix_before(
    configuration: Configuration, item: Resolved, _: Mapping[str, Resolved]
) -> Given:
    """The same, of which nothing is read: whether a merged model is needed is only known once all
    other inputs of its reader are there."""
    found = find_importance(configuration, item)
    return Given({name: given._replace(reads=()) for name, given in found.items()})


def _taught_sources(
    configuration: Configuration, item: Common, taught: Mapping[str, Resolved]
) -> Given:
    return Given(
        sources={
            f"{domain}/{key}": source
            for domain, one in taught.items()
            for key, source in source_paths(configuration, one).items()
        }
    )


def _sample(configuration: Configuration, item: Common, _: Mapping[str, Resolved]) -> Given:
    """The pinned sample of training records."""
    written = configuration.build.sample
    if written is None:
        return Given()
    file = expand_path(configuration.conf.parent, written)
    if not file.is_file():
        raise ConfigError(
            f"conf/build.yaml: sample: '{written}' is no file (looked at {file}); mend the path, "
            "or set it to null"
        )
    return Given(sources={SAMPLE: str(file)})


def _need_sample(configuration: Configuration, item: Resolved, key: str) -> None:
    if configuration.build.sample is None:
        raise ConfigError(
            f"{_set_in(item, key)}: {key}: there is no sample to make it of; name one in "
            f"conf/build.yaml (sample: conf/sample.jsonl), or set {key} to false"
        )


def _own_sources(configuration: Configuration, item: Resolved, _: Mapping[str, Resolved]) -> Given:
    return Given(sources=source_paths(configuration, item))


def _origin(configuration: Configuration, item: Common, taught: Mapping[str, Resolved]) -> Given:
    """The text that a base is made from, or the folder or file that it is taken from."""
    base, path = item.base, _base_file(configuration, item)
    if base.made_here:
        return Given({"corpus": Input("corpus", f"base/{item.base_name}", ("corpus.jsonl",))})
    if base.folder is None:
        return _original(configuration, item, taught)
    folder = expand_path(configuration.conf.parent, base.folder)
    if not folder.is_dir():
        raise ConfigError(
            f"{path}: folder: '{base.folder}' is no folder (looked at {folder}); mend the path, or "
            "use hub_id"
        )
    _refuse_unreadable(folder, f"{path}: folder: '{base.folder}'")
    return Given(sources={"folder": str(folder)})


def _original(configuration: Configuration, item: Common, _: Mapping[str, Resolved]) -> Given:
    """The GGUF file of one's own that a base is taken back from."""
    if item.base.gguf is None or item.base.gguf.path is None:
        return Given()
    file = expand_path(configuration.conf.parent, item.base.gguf.path)
    if not file.is_file():
        raise ConfigError(
            f"{_base_file(configuration, item)}: gguf: '{item.base.gguf.path}' is no file (looked "
            f"at {file}); mend the path, or name a package or hub_id"
        )
    return Given(sources={ORIGINAL: str(file)})


def _base_file(configuration: Configuration, item: Common) -> Path:
    return configuration.conf / "base" / f"{item.base_name}.yaml"


def _find_start(configuration: Configuration, item: Resolved, _: Mapping[str, Resolved]) -> Given:
    """The common start of a domain's base: for whoever has LoRA of its shape, and begins from no
    neighbour."""
    if not item.build.start.enabled:
        return Given()
    _need_sample(configuration, item, "start.enabled")
    base = configuration.common(item.base_name).build
    if item.build.lora != base.lora or item.build.training.warm_start is not None:
        return Given()
    return Given({START: Input("start", f"base/{item.base_name}", ("adapter_*",))})


def find_warm_start(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """The store's file that a domain's adapter begins from."""
    if item.build.training.warm_start is None:
        return {}
    domain, _, digest = item.build.training.warm_start.partition("@")
    path = _set_in(item, "training.warm_start")
    store = configuration.build.store or f"{configuration.build.root}/store"
    blob = expand_path(configuration.conf.parent, store) / "blobs" / digest[:2] / digest
    if not blob.exists():
        raise ConfigError(
            f"{path}: training.warm_start: the store has no adapter {digest[:12]}… of {domain}; "
            f"build {domain}, and pin what `meetara-build explain {domain}/adapter` shows, or "
            "remove the key"
        )
    rank, own = _rank(blob), item.build.lora.rank
    if rank not in (None, own):
        raise ConfigError(
            f"{path}: training.warm_start: that adapter of {domain} has rank {rank}, and lora.rank "
            f"is {own} here; make them the same"
        )
    return {WARM_START: str(blob)}


def _rank(weights: Path) -> int | None:
    """The rank of an adapter, by the header of its safetensors file; None where it does not say,
    which training then refuses."""
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
    """The file that sets a key for a domain, or a part of it."""
    usual = f"conf/domain/{item.name}.yaml" if key.startswith("domain.") else "conf/build.yaml"
    return next(
        (change.path for change in item.changes if f"{change.key}.".startswith(f"{key}.")), usual
    )


def find_joint(configuration: Configuration, item: Resolved) -> dict[str, Input]:
    """The neighbours whose training records a domain learns too."""
    found, built = {}, configuration.list_selected()
    for name in item.build.training.joint:
        if name == item.name or name not in built:
            fault = "is the domain itself" if name == item.name else "is no domain of this build"
            known = [other for other in built if other != item.name]
            raise ConfigError(
                f"{_set_in(item, 'training.joint')}: training.joint: '{name}' "
                f"{fault}{nearest(name, known)}"
            )
        found[f"{JOINT}{name}"] = Input("dataset", name, ("train.jsonl",))
    # A neighbour's record may be held out here, which only the test records show.
    return found and {**found, "dataset": Input("dataset", item.name, (*LEARNT, "test.jsonl"))}


def find_observers(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """The files of the agents that watch a domain's training."""
    if not item.build.training.observers:
        return {}
    files = plugin_files(configuration.conf.parent)
    for name in item.build.training.observers:
        if name not in files:
            raise ConfigError(
                f"{_set_in(item, 'training.observers')}: training.observers: there is no agent "
                f"'{name}'{nearest(name, list(files))}"
            )
    return {f"{OBSERVER}{name}": str(files[name]) for name in item.build.training.observers}


def source_paths(configuration: Configuration, item: Resolved) -> dict[str, str]:
    """Absolute paths of a domain's source files, by the names the dataset stage knows them by."""
    found = {}
    path = configuration.domains[item.name]
    for index, source in enumerate(item.domain.sources):
        written = source.path or source.hub
        assert written is not None
        file = expand_path(path.parent, written)
        if file.exists():
            _refuse_unreadable(file, f"{path}: sources: '{written}'")
            found[f"source_{index}"] = str(file)
        elif source.hub is not None and source.revision is None:
            raise ConfigError(
                f"{_source_line(path, index)}: source '{written}' of a hub is not pinned; add "
                "`revision:` with a commit's 40 hex digits, as the hub lists them under Files"
            )
        elif source.path is not None:
            raise ConfigError(
                f"{_source_line(path, index)}: source '{written}' is not there (looked at {file}); "
                "mend the path, or put the file there"
            )
    return found


def _source_line(path: Path, index: int) -> str:
    lines = read_lines(path)
    line = lines.get(("sources", index)) or lines.get(("domain", "sources", index), 1)
    return f"{path}:{line}"


def _refuse_unreadable(path: Path, where: str) -> None:
    """What is neither a file nor a folder of files, or a folder without end, would be read for
    ever."""
    try:
        state(path)
    except OSError as error:
        raise ConfigError(
            f"{where} leads to {error.filename}: {error.strerror}; name a file, or a folder of "
            "data alone"
        ) from None


MORE: dict[str, Callable[[Configuration, Any, Mapping[str, Resolved]], Given]] = {
    "taught_sources": _taught_sources,
    "own_sources": _own_sources,
    "start": _find_start,
    "sample": _sample,
    "origin": _origin,
    "original": _original,
    "imatrix": lambda configuration, item, _: Given(find_importance(configuration, item)),
    "imatrix_before": _imatrix_before,
    "base_imatrix": _base_imatrix,
    "base_types": lambda configuration, item, _: Given(find_base_types(configuration, item)),
    "bundle_types": _bundle_types,
    "joint": lambda configuration, item, _: Given(find_joint(configuration, item)),
    "warm_start": lambda configuration, item, _: Given({}, find_warm_start(configuration, item)),
    "observers": lambda configuration, item, _: Given({}, find_observers(configuration, item)),
}
