"""Which domains are in which bundle, and which bundles cannot be.

A bundle that cannot be is refused where somebody asks for it: what it holds depends on what the
project builds, and a build of domains needs no bundle.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from meetara_build.config.bundles import Bundled, read_bundles
from meetara_build.config.resolve import Common, Configuration, Resolved
from meetara_build.config.schema import Bundle
from meetara_build.errors import ConfigError, nearest
from meetara_build.graph.recipes import uses_base_imatrix
from meetara_build.graph.stages import MERGED, refuse_reserved
from meetara_build.llama_cpp.quants import CONVERTED
from meetara_build.stages.recipes.bundle import find_default

FLOAT = "F16"
"""The type of a base's own file that the others are quantized from."""


class Bundles(NamedTuple):
    """The bundles that can be built, and why others cannot, by name."""

    found: list[Bundled]
    refused: dict[str, str]


def find_bundles(configuration: Configuration, built: Mapping[str, Resolved]) -> Bundles:
    """The bundles of a project; ``built`` are the domains that it builds.

    Raises:
        ConfigError: a bundle's file is wrong in itself, or its name is reserved.
    """
    found, refused = [], {}
    for name, bundle in read_bundles(configuration.conf.parent).items():
        where = f"conf/bundle/{name}.yaml"
        refuse_reserved(name, f"{where}: ", "bundle")
        try:
            found.append(_resolve(configuration, built, name, bundle))
        except ConfigError as fault:
            refused[name] = f"{where}: {fault}"
    return Bundles(found, refused)


def _resolve(
    configuration: Configuration, built: Mapping[str, Resolved], name: str, bundle: Bundle
) -> Bundled:
    members = [built[domain] for domain in _list_members(configuration, built, bundle)]
    common = _find_base(configuration, members)
    if merged := [one.name for one in members if one.build.gguf.files == MERGED]:
        raise ConfigError(
            f"domains: {_join(merged)}: gguf.files is merged, which makes no adapter; set it to "
            "lora or both, or leave the domain out"
        )
    quants = _list_quants(configuration, common, bundle)
    for one in members:
        if find_default(quants, one.domain.quants) is None:
            raise ConfigError(
                f"quants: {one.name} was judged on {', '.join(one.domain.quants)}, and on none of "
                f"{', '.join(quants)}; name one of its types, or add one to its quants in "
                f"conf/domain/{one.name}.yaml"
            )
    return Bundled(
        name,
        bundle,
        [one.name for one in members],
        quants,
        common.base_name,
        common.base,
        common.hardware,
        common.build,
        [],
    )


def _list_members(
    configuration: Configuration, built: Mapping[str, Resolved], bundle: Bundle
) -> list[str]:
    """The domains that a bundle names, by name or category, as far as they are built."""
    if bundle.domains == "all":
        return sorted(built)
    categories = {
        name: configuration.resolve(name).domain.category for name in configuration.domains
    }
    chosen: set[str] = set()
    for word in bundle.domains:
        members = [name for name, category in categories.items() if word in (name, category)]
        if not members:
            known = [*categories, *set(categories.values())]
            raise ConfigError(f"domains: unknown domain or category '{word}'{nearest(word, known)}")
        if word in categories and word not in built:
            raise ConfigError(
                f"domains: '{word}' is not built; add it to domains in conf/build.yaml, or remove "
                "it here"
            )
        chosen.update(members)
    if not chosen & {*built}:
        raise ConfigError(
            "domains: none of them is built; add some to domains in conf/build.yaml, or name others"
        )
    return sorted(chosen & {*built})


def _find_base(configuration: Configuration, members: Iterable[Resolved]) -> Common:
    """The one base of all members."""
    by_base: dict[str, list[str]] = {}
    for one in members:
        by_base.setdefault(one.base_name, []).append(one.name)
    if len(by_base) > 1:
        told = "; ".join(f"{_join(names)} on {base}" for base, names in by_base.items())
        raise ConfigError(
            f"domains: they are built on several bases, and a bundle has one: {told}; name those "
            "on one base, or give the others the same"
        )
    return configuration.common(next(iter(by_base)))


def _list_quants(configuration: Configuration, common: Common, bundle: Bundle) -> list[str]:
    """The types of a bundle's files: F16, and what its base is quantized to."""
    known = [FLOAT, *common.base.quants]
    if bundle.quants == "all":
        chosen = known
    else:
        chosen = list(dict.fromkeys(bundle.quants))
        if missing := [quant for quant in chosen if quant not in known]:
            mend = (
                f"name one of {', '.join(known)}"
                if missing[0] in CONVERTED
                else f"add it to base.quants in conf/base/{common.base_name}.yaml"
            )
            raise ConfigError(f"quants: {common.base_name} has no {_join(missing)}; {mend}")
    if chosen != [FLOAT] and uses_base_imatrix(common) and configuration.build.sample is None:
        raise ConfigError(
            "quants: the base's files are quantized by an importance matrix, and there is no "
            "sample to make it of; name one in conf/build.yaml (sample: conf/sample.jsonl), or set "
            "gguf.imatrix.enabled to false"
        )
    return chosen


def _join(names: Iterable[str]) -> str:
    """Some names, the first few of many."""
    return ", ".join(_shorten([*names]))


def _shorten(names: list[str], most: int = 5) -> Iterator[str]:
    yield from names[:most]
    if len(names) > most:
        yield f"{len(names) - most} more"
