"""What a build has finished of a domain, as its package says: which files belong together, and
whether they may be used."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from meetara_build.errors import ArtifactError, HeldBackError, MeetaraError, NotServedError
from meetara_build.outside import show_short
from meetara_build.stages.package import SUMS
from meetara_build.stages.package.files import File, find_default, list_files
from meetara_build.stages.recipes.package import PackageRecipe
from meetara_build.store.manifest import MANIFEST, Manifest, digest_file, read_manifest

F16 = "F16"


class Proved(NamedTuple):
    """A GGUF file, and the sha256 that its build wrote down."""

    path: Path
    sha256: str

    def check(self) -> None:
        """See that the file is the one that was built.

        Raises:
            ArtifactError: it is another one, or is not there.
        """
        try:
            same = digest_file(self.path) == self.sha256
        except OSError:
            same = False
        if not same:
            raise ArtifactError(
                f"{self.path}: is not the file that was packaged; run `meetara-build build`, or "
                "`meetara-build verify --repair`"
            )


class Built(NamedTuple):
    """A domain whose package is whole: its adapter, and by type the base's files that it was proved
    on, the one for everyday use last."""

    domain: str
    description: str
    system_prompt: str | None
    base: str
    adapter: Proved
    bases: dict[str, Proved]
    created: int


class Refused(NamedTuple):
    """A domain that is not served, and why: an error's code, and its message; whether it is held
    back, or not built at all."""

    domain: str
    code: str
    message: str
    held_back: bool = False
    missing: bool = False


def read_built(root: Path, package: Path) -> Built | Refused:
    """What the package in this folder says of its domain.

    Raises:
        ArtifactError: a manifest is damaged, or the package is in the middle of being replaced.
    """
    domain = package.parent.name
    if not (package / MANIFEST).exists():
        said = f"{domain}: not built yet; run `meetara-build build {domain}`"
        return Refused(domain, NotServedError.code, said, missing=True)
    manifest = read_manifest(package / MANIFEST)
    try:
        recipe = PackageRecipe.model_validate(manifest.made_from["recipe"])
    except ValidationError:
        return Refused(
            domain,
            NotServedError.code,
            f"{domain}: was built by another version; run `meetara-build build {domain}`",
        )
    if manifest.held_back is not None:
        held_back = manifest.held_back
        return Refused(domain, held_back["code"], held_back["message"], held_back=True)
    if recipe.files == "merged":
        return Refused(
            domain,
            NotServedError.code,
            f"{domain}: is built as merged models alone (gguf.files), which no other domain could "
            f"share a base with; set `gguf.files: both` in conf/domain/{domain}.yaml and build, or "
            f"use `meetara-build chat {domain}`",
        )
    return _read_files(root, package, manifest, recipe)


def _read_files(root: Path, package: Path, manifest: Manifest, recipe: PackageRecipe) -> Built:
    sums = _read_sums(package, manifest)
    shared = recipe.model_copy(update={"files": "lora"})
    adapter = find_default(shared).adapter
    assert adapter is not None
    on = {file.name: file for file in list_files(shared)}
    bases = dict[str, Proved]()
    for kind in dict.fromkeys([F16, *recipe.quants]):
        file = on[f"{recipe.base}-{kind}.gguf"]
        if file.seen in sums:
            bases[kind] = _locate(package, file, sums[file.seen])
        elif kind == F16:
            bases[kind] = _find_own_file(root, package, file)
    return Built(
        recipe.domain,
        recipe.description,
        recipe.system_prompt,
        recipe.base,
        _locate(package, adapter, sums[adapter.seen]),
        bases,
        int((package / MANIFEST).stat().st_mtime),
    )


def _read_sums(package: Path, manifest: Manifest) -> dict[str, str]:
    """The package's checksums, by the names of files as it sees them."""
    path = package / SUMS
    Proved(path, manifest.files[SUMS]["sha256"]).check()
    lines = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in lines}


def _locate(package: Path, file: File, sha256: str) -> Proved:
    return Proved((package / file.folder / file.name).resolve(), sha256)


def _find_own_file(root: Path, package: Path, file: File) -> Proved:
    """The base's own F16 file, which an adapter beside merged models is proved on, and which their
    package does not name."""
    folder = (package / file.folder).resolve()
    entry = read_manifest(folder / MANIFEST).files.get(file.name)
    if entry is None:
        raise ArtifactError(f"{folder / file.name}: not built yet; run `meetara-build build`")
    return Proved(folder / file.name, entry["sha256"])


def choose_types(found: list[Built]) -> dict[str, str]:
    """For each base the type of its file that all of its domains were proved on: of several the one
    for everyday use, which is named last."""
    chosen = {}
    for base in {built.base for built in found}:
        some = [built for built in found if built.base == base]
        common = [kind for kind in some[0].bases if all(kind in one.bases for one in some)]
        chosen[base] = common[-1]
    return chosen


def refuse(refused: Refused) -> MeetaraError:
    """The error of a request for a domain that is not served."""
    if refused.held_back:
        error: MeetaraError = HeldBackError(f"held back, and not served: {refused.message}")
        error.code = refused.code
        return error
    return NotServedError(refused.message)


def tell(refused: Iterable[Refused]) -> Iterator[str]:
    """A line for each domain that is not served, and one for all that are not built."""
    missing = list[str]()
    for one in refused:
        if one.held_back:
            lines = one.message.splitlines()
            reason = lines[1].strip() if len(lines) > 1 else lines[0]
            yield show_short(f"{one.domain} is held back and not served: {reason}", 200)
        elif one.missing:
            missing.append(one.domain)
        else:
            yield one.message
    if missing:
        yield show_short(f"not built yet, and not served: {', '.join(missing)}", 200)
