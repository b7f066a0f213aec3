"""data check, verify and doctor: proofs on demand."""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from rich.progress import Progress

from meetara_build.cli.building import build
from meetara_build.cli.measuring import find_tokenizer, not_measured
from meetara_build.cli.output import out, print_json, progress, style_line, table
from meetara_build.engine.planning import project_graph, wanted
from meetara_build.engine.snakemake import profile_hardware, profile_names
from meetara_build.errors import ArtifactError, ConfigError, DataError, MeetaraError
from meetara_build.graph import Graph, Step
from meetara_build.outside import show_line
from meetara_build.project import find_project
from meetara_build.setup.check import LLAMA_CPP_PYTHON, cache_fault, llama_fault, user_folder
from meetara_build.store.content import Store, find_work_key
from meetara_build.store.manifest import digest_file, faults, parse_manifest, read_manifest

if TYPE_CHECKING:
    from meetara_build.stages.dataset import Examined

SUMS = "SHA256SUMS"
LOCAL = "local"
BASE = "base/"


def check_data(words: Sequence[str], *, as_json: bool) -> bool:
    """Print every bad record of the domains' sources, what a build would leave out, and why it would refuse them, if it would;
    whether all is well."""
    graph = project_graph()
    domains = wanted(graph, words) or graph.domains
    examined: dict[str, Examined] = {}
    unusable: dict[str, str] = {}
    unmeasured: dict[str, None] = {}
    tokenizers: dict[str, Any] = {}
    with progress() as bar:
        for domain in bar.track(domains, description="reading"):
            step = graph.step("dataset", domain)
            base = graph.step("base", step.inputs["base"].target)
            if base.target not in tokenizers:
                tokenizers[base.target] = find_tokenizer(graph, base)
            if tokenizers[base.target] is None:
                unmeasured[base.recipe["name"]] = None
            try:
                examined[domain] = _examined(step, tokenizers[base.target], bar)
            except DataError as fault:
                unusable[domain] = str(fault)
    refused = unusable | {
        domain: found.refusal for domain, found in examined.items() if found.refusal
    }
    if as_json:
        _print_examined_json(len(domains), examined, refused, list(unmeasured))
    else:
        _print_examined(graph, len(domains), examined, refused, list(unmeasured))
    return not refused and not any(found.faults for found in examined.values())


def _examined(step: Step, tokenizer: Any, bar: Progress) -> "Examined":
    from meetara_build.stages.dataset import examine, read_all
    from meetara_build.stages.recipes.dataset import DatasetRecipe

    recipe = DatasetRecipe.model_validate(step.recipe)
    sources = read_all(recipe, {name: Path(path) for name, path in step.sources.items()})

    def tell(what: str, share: float) -> None:
        bar.update(bar.task_ids[0], description=f"{step.target}: {what} {share:.0%}")

    return examine(recipe, sources, tokenizer, tell)


def _print_examined_json(
    checked: int,
    examined: Mapping[str, "Examined"],
    refused: Mapping[str, str],
    unmeasured: Sequence[str],
) -> None:
    print_json(
        {
            "checked": checked,
            "faults": {
                domain: [fault.as_json() for fault in found.faults]
                for domain, found in examined.items()
                if found.faults
            },
            "errors": refused,
            "losses": {
                domain: found.losses._asdict()
                for domain, found in examined.items()
                if found.losses.left_out
            },
            "notes": {domain: found.notes for domain, found in examined.items() if found.notes},
            "bases_not_here": unmeasured,
        }
    )


def _print_examined(
    graph: Graph,
    checked: int,
    examined: Mapping[str, "Examined"],
    refused: Mapping[str, str],
    unmeasured: Sequence[str],
) -> None:
    from meetara_build.stages.dataset.check import table as fault_table

    lines = []
    for domain, found in examined.items():
        listed = fault_table(found.faults) if found.faults else ""
        if listed and listed not in refused.get(domain, ""):
            lines.append(f"{domain}: {len(found.faults)} faults\n{listed}")
        if found.losses.left_out and domain not in refused:
            lines.append(f"{domain}: {found.losses.text(graph.step('dataset', domain).recipe)}")
        for note in found.notes:
            lines.append(f"{domain}: {note}")
    for domain, reason in refused.items():
        lines.append(f"{domain}: a build refuses these data: {reason.removeprefix(f'{domain}: ')}")
    for base in unmeasured:
        lines.append(not_measured(base))
    for line in lines:
        out.print(line)
    # A refusal for bad records is those records once more.
    count = sum(max(len(found.faults), domain in refused) for domain, found in examined.items())
    count += len(refused.keys() - examined.keys())
    out.print(
        f"{checked} domains read, {count} faults" + ("; mend the lines above" if count else "")
    )


def verify(words: Sequence[str], profile: str | None, *, repair: bool, as_json: bool) -> bool:
    """Check every file of built domains, or of folders with SHA256SUMS; whether all are as built.

    What is damaged is built again with this profile, or else with that of the machine it was built for.

    Raises:
        ArtifactError: nothing is built, or a folder has no usable SHA256SUMS.
        ConfigError: several profiles are for that machine.
    """
    bases = [word for word in words if word.startswith(BASE) and not (Path(word) / SUMS).exists()]
    folders = [
        Path(word)
        for word in words
        if word not in bases and (os.sep in word or (Path(word) / SUMS).exists())
    ]
    wrong = {str(folder): _folder_faults(folder) for folder in folders}
    names = [word for word in words if word not in bases and Path(word) not in folders]
    damaged: list[Step] = []
    checked = len(folders)
    if names or bases or not words:
        graph = project_graph(profile or LOCAL)
        ends = [("gguf", base) for base in bases]
        built = _built(
            graph, ends + (graph.ends(wanted(graph, names)) if names or not words else [])
        )
        checked += len(built)
        with progress() as bar:
            for step in bar.track(built, description="reading"):
                wrong[step.name] = _step_faults(graph, step)
                damaged += [step] if wrong[step.name] else []
            if not words:
                wrong["store"] = _store_faults(graph, bar, repair=repair)
        if repair and damaged:
            _repair(graph, damaged, profile or _profile_of(graph), as_json=as_json)
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
        out.print(f"{checked} artifacts checked, {len(lines)} faults{hint}")
    return not lines


def _step_faults(graph: Graph, step: Step) -> list[str]:
    """What is wrong with a step's files, each of them read, whatever is remembered of it."""
    folder = graph.root / step.place.folder
    try:
        manifest = read_manifest(graph.root / step.place.manifest)
    except ArtifactError:
        return [f"{graph.root / step.place.manifest}: damaged manifest"]
    return [f"{folder / name}: {fault}" for name, fault in faults(folder, manifest).items()]


def _store_faults(graph: Graph, bar: Progress, *, repair: bool) -> list[str]:
    """Files of the store that are not what their name says; they are dropped if asked, and made again when needed."""
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


def _built(graph: Graph, ends: Sequence[tuple[str, str]]) -> list[Step]:
    built = [
        step
        for step in graph.above(ends)
        if step.keep and (graph.root / step.place.manifest).exists()
    ]
    if not built:
        raise ArtifactError(f"{graph.root}: nothing built yet; run `meetara-build build`")
    return built


def _repair(graph: Graph, damaged: Sequence[Step], profile: str, *, as_json: bool) -> None:
    """Forget the damaged artifacts and build them again; a damaged blob of the store is found and dropped on the way."""
    for step in damaged:
        (graph.root / step.place.manifest).unlink()
    names = {step.target for step in damaged}
    everything = not names <= set(graph.domains)
    build([] if everything else sorted(names), profile, cores=None, as_json=as_json)


def _profile_of(graph: Graph) -> str:
    """The profile of the machine that what is built here was built for: with it, the most of it is as it is asked for.

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
        f"verify: what is damaged was built for {profile_hardware(graph.project, best[0])}; say where to build it again: "
        + " or ".join(f"--profile {name}" for name in best)
    )


def _folder_faults(folder: Path) -> list[str]:
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ArtifactError(
            f"{path}: cannot be read; name a folder that `package` made, or a domain"
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
            found.append(f"{folder / name}: its content is not what was built")
    return found


class Check(NamedTuple):
    """One line of the doctor's: what was looked at, what was found, and what to do where that is wrong."""

    name: str
    found: str
    mend: str | None


def doctor(*, as_json: bool) -> bool:
    """Print the state of the installation; whether all is well."""
    checks = [
        _python(),
        *_versions(),
        _llama(),
        *_packages(),
        *_project(),
        _caches(),
        _memory(),
        _disk(),
    ]
    well = all(check.mend is None for check in checks)
    if as_json:
        print_json({"well": well, "checks": [check._asdict() for check in checks]})
        return well
    shown = table("", "", "")
    for check in checks:
        shown.add_row(
            style_line(("ok", "green") if check.mend is None else ("no", "red")),
            check.name,
            check.found,
        )
        if check.mend:
            shown.add_row("", "", f"→ {check.mend}")
    out.print(shown)
    return well


def _python() -> Check:
    fit = sys.version_info >= (3, 11)
    return Check(
        "Python",
        sys.version.split()[0],
        None if fit else "install Python 3.11 or newer, and meetara-build into it",
    )


def _versions() -> list[Check]:
    checks = []
    for name in ("torch", "transformers", "peft", "snakemake", "hydra-core"):
        try:
            checks.append(Check(name, metadata.version(name), None))
        except metadata.PackageNotFoundError:
            checks.append(
                Check(
                    name,
                    "missing",
                    "install meetara-build again: `pip install --force-reinstall meetara-build`",
                )
            )
    return checks


def _llama() -> Check:
    fault = llama_fault()
    return Check(
        "llama.cpp",
        fault or f"{LLAMA_CPP_PYTHON}, converter and gguf from one source",
        "run `meetara-build setup`" if fault else None,
    )


def _packages() -> list[Check]:
    """The bases that are files of packages, of the project around."""
    from meetara_build.cli.setting_up import packaged_bases
    from meetara_build.setup.originals import package_file

    try:
        wanted = packaged_bases(find_project() / "conf")
    except MeetaraError:
        return []  # the check of the project says why
    kept = {one.asked_by.stem: package_file(one.package, one.file).exists() for one in wanted}
    return [
        Check(
            f"base {one.asked_by.stem}",
            one.package,
            None if kept[one.asked_by.stem] else "run `meetara-build setup`",
        )
        for one in wanted
    ]


def _project() -> list[Check]:
    try:
        graph = project_graph()
    except MeetaraError as error:
        return [Check("project", str(error).splitlines()[0], "mend the file it names")]
    profiles = user_folder("XDG_CONFIG_HOME", ".config") / "snakemake" / "local"
    linked = (
        os.access(profiles, os.F_OK)
        and profiles.resolve() == (find_project() / "conf" / "profile" / "local").resolve()
    )
    mend = (
        None if linked else "run `meetara-build profiles install`, for `snakemake --profile local`"
    )
    return [
        Check("configuration", f"{len(graph.domains)} domains, {len(graph.steps)} steps", None),
        Check("profiles", "installed" if linked else "another project's, or none", mend),
    ]


def _caches() -> Check:
    fault = cache_fault()
    mend = "set HOME or XDG_CACHE_HOME to a folder of yours: `build` does without, `snakemake` does not"
    return Check("caches", fault or "can be written", mend if fault else None)


def _memory() -> Check:
    free = psutil.virtual_memory().available / 1e9
    return Check(
        "memory",
        f"{free:.1f} GB free, {os.cpu_count()} cores",
        None if free > 2 else "free memory: a build needs 2 GB",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check(
        "disk",
        f"{free:.0f} GB free",
        None if free > 3 else "free disk space: a domain of the default base needs 0.6 GB",
    )
