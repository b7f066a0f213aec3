"""Prove files against the checksums they were built with."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from meetara_build.cli.build import build
from meetara_build.cli.completion import complete_profiles, complete_targets
from meetara_build.cli.options import LOCAL, Json, make_path_full
from meetara_build.cli.output import out, print_json, progress, size
from meetara_build.engine.planning import project_graph, select_targets
from meetara_build.engine.profiles import profile_hardware, profile_names
from meetara_build.errors import ArtifactError, ConfigError, HeldBackError
from meetara_build.graph import Graph, Step
from meetara_build.graph.stages import ABOVE_BASES, ABOVE_BUNDLES
from meetara_build.outside import show_line
from meetara_build.store.content import Store, find_work_key
from meetara_build.store.manifest import (
    MANIFEST,
    digest_file,
    faults,
    parse_manifest,
    read_manifest,
)

SUMS = "SHA256SUMS"
BASE_CHANGED = (
    ", and the adapters of this bundle are of no use on another base; take the file from where the "
    "bundle is from"
)
OF_BASES = ("gguf", "quantize")
"""The stages whose files people use of a base."""


def verify(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Domains, base/NAME, bundle/NAME, or folders that hold SHA256SUMS; all that is built if none is named.",
            autocompletion=complete_targets,
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Build again what is damaged.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Where to repair; the profile of the machine it was built for if not given.",
            autocompletion=complete_profiles,
            callback=make_path_full,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every file of built domains and bundles, or of folders with SHA256SUMS.

    What is damaged is built again with this profile, or else with that of the machine it was built
    for.

    Raises:
        ArtifactError: nothing is built, or a folder has no usable SHA256SUMS.
        ConfigError: several profiles are for that machine.
        Exit: with 1, where a file is not as it was built.
    """
    words = what or []
    folders = [Path(word) for word in words if _is_folder(word)]
    bases = [word for word in words if word.startswith(ABOVE_BASES) and not _is_folder(word)]
    wrong = {str(folder): _folder_faults(folder) for folder in folders}
    names = [word for word in words if word not in bases and Path(word) not in folders]
    damaged: list[Step] = []
    checked, bundles = len(folders), list[Step]()
    if names or bases or not words:
        graph = project_graph(profile or LOCAL)
        ends = [
            (stage, base)
            for base in bases
            for stage in OF_BASES
            if stage == "gguf" or (stage, base) in graph.steps
        ]
        built = _list_built(
            graph,
            ends
            + (
                graph.ends(select_targets(graph, names), bundles=not words)
                if names or not words
                else []
            ),
        )
        bundles = [step for step in built if step.target in graph.bundles]
        checked += len(built)
        with progress() as bar:
            for step in bar.track(built, description="reading"):
                wrong[step.name] = _step_faults(graph, step)
                damaged += [step] if wrong[step.name] else []
            if not words:
                wrong["store"] = _store_faults(graph, bar, repair=repair)
        if repair and damaged:
            _repair(graph, damaged, profile or _find_profile(graph), as_json=as_json)
        if repair:
            damaged, wrong = [], {str(folder): wrong[str(folder)] for folder in folders}
    lines = [line for listed in wrong.values() for line in listed]
    if as_json:
        print_json(
            {
                "checked": checked,
                "faults": {name: listed for name, listed in wrong.items() if listed},
            }
        )
    else:
        for line in lines:
            out.print(f"  {show_line(line)}")  # a file's name may read like a line of ours
        hint = (
            "; mend it with `meetara-build verify --repair`"
            if damaged or wrong.get("store")
            else ""
        )
        for step in bundles:
            out.print(_describe_links(graph, step))
        out.print(f"{checked} artifacts checked, {len(lines)} faults{hint}")
    if lines:
        raise typer.Exit(1)


def _is_folder(word: str) -> bool:
    """Whether a word is a folder with checksums, and no target of the build."""
    of_build = word.startswith((ABOVE_BASES, ABOVE_BUNDLES))
    return (Path(word) / SUMS).exists() or (os.sep in word and not of_build)


def _describe_links(graph: Graph, bundle: Step) -> str:
    """How much of a bundle's large files are further names of its base's and domains' files."""
    theirs = {
        (state.st_dev, state.st_ino)
        for given in bundle.inputs.values()
        for path in (graph.root / given.place.folder).glob("*.gguf")
        for state in [path.stat()]
    }
    ours = [path.stat() for path in (graph.root / bundle.place.folder).rglob("*.gguf")]
    whole = sum(state.st_size for state in ours)
    linked = sum(state.st_size for state in ours if (state.st_dev, state.st_ino) in theirs)
    rest = (
        ""
        if linked == whole
        else f"; {size(whole - linked)} are none: copies, or blocks that the file system shares"
    )
    return (
        f"{bundle.target}: {size(linked)} of {size(whole)} are links to files of its base and "
        f"domains{rest}"
    )


def _step_faults(graph: Graph, step: Step) -> list[str]:
    """What is wrong with a step's files, each of them read, whatever is remembered of it."""
    folder = graph.root / step.place.folder
    try:
        manifest = read_manifest(graph.root / step.place.manifest)
    except ArtifactError:
        return [f"{graph.root / step.place.manifest}: damaged manifest"]
    return [f"{folder / name}: {fault}" for name, fault in faults(folder, manifest).items()]


def _store_faults(graph: Graph, bar: Progress, *, repair: bool) -> list[str]:
    """Files of the store that are not what their name says; they are dropped if asked, and made
    again when needed."""
    store = Store(graph.store, graph.root)
    kinds = {"blobs": _is_own_blob, "actions": _is_own_manifest, "notes": _is_own_manifest}
    found = []
    with store.explain_refusals("read"):
        files = [
            (path, is_right)
            for kind, is_right in kinds.items()
            for path in sorted((store.folder / kind).glob("*/*"))
            if not path.name.startswith(".")
        ]
        for path, is_right in bar.track(files, description="reading the store"):
            if not is_right(path):
                found.append(f"{path}: its content is not what was stored")
                if repair:
                    with store.explain_refusals("written"):
                        path.unlink()
    return found


def _is_own_blob(path: Path) -> bool:
    return digest_file(path) == path.name


def _is_own_manifest(path: Path) -> bool:
    """Whether a file of the store holds the manifest of the work that it is named after."""
    try:
        return find_work_key(parse_manifest(path.read_bytes())) == path.stem
    except ValueError:
        return False


def _list_built(graph: Graph, ends: Sequence[tuple[str, str]]) -> list[Step]:
    built = [
        step
        for step in graph.above(ends)
        if step.keep and (graph.root / step.place.manifest).exists()
    ]
    if not built:
        raise ArtifactError(f"{graph.root}: nothing built yet; run `meetara-build build`")
    return built


def _repair(graph: Graph, damaged: Sequence[Step], profile: str, *, as_json: bool) -> None:
    """Forget the damaged artifacts and build them again; a damaged blob of the store is found and
    dropped on the way."""
    bundles = [
        bundle
        for bundle in graph.bundles
        if (graph.root / bundle / MANIFEST).exists()
        and any(step in damaged for step in graph.above(graph.ends([bundle])))
    ]
    for step in damaged:
        (graph.root / step.place.manifest).unlink()
    names = {step.target for step in damaged} - {*graph.bundles}
    everything = not names <= {*graph.domains}
    wanted = [[*sorted(names), *bundles]]
    if everything:
        wanted = [[], bundles] if bundles else [[]]
    for words in wanted:
        with contextlib.suppress(HeldBackError):  # its files are as they were built again
            build(words, profile, as_json=as_json)


def _find_profile(graph: Graph) -> str:
    """The profile of the machine that what is built here was built for: with it, the most of it is
    as it is asked for.

    Raises:
        ConfigError: several profiles are for that machine.
    """
    built = {}
    for step in graph.steps.values():
        with contextlib.suppress(ArtifactError):
            built[step.stage, step.target] = read_manifest(
                graph.root / step.place.manifest
            ).fingerprint

    def count(profile: str) -> int:
        steps = project_graph(profile).steps
        return sum(key in steps and steps[key].fingerprint == built[key] for key in built)

    if count(LOCAL) == len(built):
        return LOCAL
    fitting = {name: count(name) for name in profile_names(graph.project)}
    best = [name for name, number in fitting.items() if number == max(fitting.values())]
    if LOCAL in best or len(best) == 1:
        return LOCAL if LOCAL in best else best[0]
    raise ConfigError(
        f"verify: what is damaged was built for {profile_hardware(graph.project, best[0])}; say "
        "where to build it again: " + " or ".join(f"--profile {name}" for name in best)
    )


def _folder_faults(folder: Path) -> list[str]:
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ArtifactError(
            f"{path}: cannot be read; name a folder that `package` made of a model that is not "
            "held back, or a domain"
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ArtifactError(
                f"{path}:{number}: not a line of sha256sum; take the folder from its source again"
            )
        if not (folder / name).is_file():
            found.append(f"{folder / name}: missing")
        elif digest_file(folder / name) != digest:
            hint = BASE_CHANGED if name.startswith(ABOVE_BASES) else ""
            found.append(f"{folder / name}: its content is not what was built{hint}")
    return found
