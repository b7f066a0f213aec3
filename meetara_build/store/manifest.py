"""Artifacts: where they lie, their manifests, and how they are written.

Light on imports: a stage that the store can answer should cost little more than starting Python.
"""

import contextlib
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from meetara_build.errors import ArtifactError
from meetara_build.outside import parse_json

MANIFEST = "manifest.json"
MISSING, CHANGED = "missing", "its content is not what was built"
MEASURED = "measured"
"""Key of a JSON artifact whose figures differ from run to run; the content digest leaves it out."""
SHA256 = re.compile(r"[0-9a-f]{64}")
NO_NAME = re.compile("[\0\ud800-\udfff]")
"""What JSON can hold and no file's name."""


Slice = dict[str, Any]
"""A recipe as JSON."""


class MadeFrom(TypedDict):
    """What a step is made from: its recipe, digests of the code and sources by name, and versions
    of the libraries."""

    recipe: Slice
    code: dict[str, str]
    libraries: dict[str, str]
    sources: dict[str, str]


PARTS = tuple(MadeFrom.__annotations__)


class Entry(TypedDict):
    """A file of an artifact: its bytes, and for JSON with measured figures the digest of the
    rest."""

    sha256: str
    size: int
    content: NotRequired[str]


class Place(NamedTuple):
    """Where an artifact lies below the root: a folder that is its own."""

    folder: str

    @property
    def manifest(self) -> str:
        """Its manifest."""
        return f"{self.folder}/{MANIFEST}"


HELD_BACK = "held_back"
"""The metric by which a package says that its model is held back."""


class Manifest(NamedTuple):
    """What an artifact is made of; written last, so that an artifact without one is no artifact."""

    stage: str
    target: str
    fingerprint: str
    made_from: MadeFrom
    inputs: dict[str, str]
    files: dict[str, Entry]
    metrics: dict[str, Any]

    @property
    def held_back(self) -> dict[str, str] | None:
        """Of a package whose model does not reach what its domain asks, the error's ``code`` and
        ``message``."""
        found: dict[str, str] | None = self.metrics.get(HELD_BACK)
        return found

    def digest(self, patterns: Iterable[str] = ("*",)) -> str:
        """sha256 of the files' names and content, of those that match a pattern; measured figures
        left out."""
        read = self.matching(patterns)
        return digest_json(
            {name: self.files[name].get("content", self.files[name]["sha256"]) for name in read}
        )

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Names of the files that match any of the patterns, sorted."""
        wanted = list(patterns)
        found = [name for name in wanted if name in self.files]
        for pattern in wanted:
            if "*" in pattern:
                found += self.files if pattern == "*" else fnmatch.filter(self.files, pattern)
        return sorted(set(found))

    def text(self) -> str:
        """Canonical JSON, the same bytes for the same artifact."""
        return json.dumps(self._asdict(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse_manifest(text: bytes) -> Manifest:
    """A manifest from its JSON. It may come from a store that others write to: its names are used
    as files' names.

    Raises:
        ValueError: it is damaged, or names what is no file of an artifact's folder.
    """
    content = parse_json(text)
    if not isinstance(content, dict) or set(content) != set(Manifest._fields):
        raise ValueError("is no manifest")
    manifest = Manifest(**content)
    if not (
        _is_whole(manifest) and all(_is_file(name, entry) for name, entry in manifest.files.items())
    ):
        raise ValueError("is a damaged manifest")
    return manifest


def _is_whole(manifest: Manifest) -> bool:
    """Whether each field is of its kind, and the fingerprint that of what it says it was made
    from."""
    made_from, inputs = manifest.made_from, manifest.inputs
    return (
        all(isinstance(word, str) for word in (manifest.stage, manifest.target))
        and all(
            isinstance(field, dict)
            for field in (made_from, inputs, manifest.files, manifest.metrics)
        )
        and all(isinstance(made_from.get(part), dict) for part in PARTS)
        and all(_is_digest(digest) for digest in inputs.values())
        and manifest.fingerprint == digest_json([manifest.stage, made_from])
    )


def _is_file(name: str, entry: Any) -> bool:
    """Whether a name leads to a file below an artifact's folder, and its entry is one."""
    return (
        not {"", ".", ".."} & set(name.split("/"))
        and NO_NAME.search(name) is None
        and isinstance(entry, dict)
        and type(entry.get("size")) is int  # and no bool
        and all(_is_digest(digest) for key, digest in entry.items() if key != "size")
        and "sha256" in entry
    )


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def digest_json(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def work_key(stage: str, target: str, fingerprint: str, inputs: Mapping[str, str]) -> str:
    """What the store knows a piece of work by; ``inputs`` are content digests by name."""
    return digest_json([stage, target, fingerprint, inputs])


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(folder: Path) -> dict[str, Entry]:
    """The ``files`` of a manifest, for every file below a folder."""
    return {
        str(path.relative_to(folder)): _entry(path)
        for path in sorted(path for path in folder.rglob("*") if path.is_file())
    }


def _entry(path: Path) -> Entry:
    entry: Entry = {"sha256": digest_file(path), "size": path.stat().st_size}
    if path.suffix == ".json" and entry["size"] < 1 << 24:
        try:
            content = parse_json(path.read_bytes())
        except ValueError:
            return entry
        if isinstance(content, dict) and MEASURED in content:
            del content[MEASURED]
            entry["content"] = digest_json(content)
    return entry


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not built yet; run `meetara-build build`") from None
    except ValueError:
        raise ArtifactError(
            f"{path}: damaged manifest; delete it and run `meetara-build build`"
        ) from None


def faults(
    folder: Path,
    manifest: Manifest,
    names: Iterable[str] | None = None,
    digest: Callable[[Path], str] = digest_file,
) -> dict[str, str]:
    """What is wrong with an artifact's files: ``missing``, or that its content is not what was
    built, by name.

    ``digest`` may remember what it read before; the default reads everything.
    """
    found = {}
    for name in manifest.files if names is None else names:
        entry, path = manifest.files[name], folder / name
        try:
            if os.stat(path).st_size != entry["size"] or digest(path) != entry["sha256"]:
                found[name] = CHANGED
        except OSError:
            found[name] = MISSING
    return found


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """The name to write a file under, which replaces ``path`` once it is whole, and is gone where
    that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, also after a power cut, finds the old content or the new,
    never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        write_durably(temporary, text)


def write_durably(path: Path, text: str) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold others off while something is read, changed and written again; ``path`` is a file for
    this alone, which stays.

    Raises:
        ArtifactError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error.strerror}); mend its rights"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_cache(path: Path, text: str) -> None:
    """Write what only saves time the next time; a full or read-only disk loses nothing by it."""
    with contextlib.suppress(OSError):
        write_text(path, text)


def commit(work: Path, root: Path, where: Place, manifest: Manifest) -> None:
    """Have a folder of finished files be the artifact: the old manifest goes first, the new one
    comes last.

    The folder is replaced whole, so that nothing that is no longer made stays in it.
    """
    target = root / where.folder
    (root / where.manifest).unlink(missing_ok=True)
    if target.is_symlink():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(work, target)
    write_text(root / where.manifest, manifest.text())


def seal(folder: Path) -> None:
    """Make files durable and read-only: they share their bytes with the store, so nobody may write
    into them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
