"""The content store behind the artifacts: what was built once is not built again.

::

    blobs/ab/ab12…            files by their sha256, read-only; artifacts are further names of the same bytes
    actions/cd/cd34….json     the manifest that a piece of work gave, by the key of that work
    fingerprints/de/de78…     an empty file for each fingerprint that some of that work had
    notes/ef/ef56….json       the same for temporaries, whose files are not kept
    roots/1a2b…/              one folder for each root that builds with this store
        root.json             where it is
        nutrition-adapter     the key of the work whose result lies there now, and where its manifest is

Checkouts may share a store (``store:`` in conf/build.yaml), also over NFS. Assumed there: a rename replaces a file in one
step, and ``flock`` works. Two machines that add the same blob write the same bytes, and the later rename wins.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from meetara_build.artifact import Manifest, digest_file, digest_json, write_text
from meetara_build.outside import parse_json

FICLONE = 0x40049409
"""Linux: have a file share another's blocks until one of the two is written (reflink; btrfs, XFS, bcachefs)."""


class Store:
    """Blobs by their sha256, and manifests by the key of the work that made them, as one root sees them."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        name = "own" if folder.is_relative_to(root) else digest_json([host(), str(root)])[:16]
        self.refs = folder / "roots" / name
        """The folder of our root's references; a store below its root goes where the root goes."""

    # What was built before

    def recall(self, key: str) -> Manifest | None:
        """The manifest that this work gave before, whether or not its files were kept."""
        for path in (self.action(key), *self._notes(key)):
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Manifest(**parse_json(path.read_bytes()))
        return None

    def look_up(self, key: str) -> Manifest | None:
        """The manifest that this work gave before, if every blob of it is there and of the right size."""
        manifest = self.recall(key)
        if manifest is None or not all(
            self._holds(entry["sha256"], entry["size"]) for entry in manifest.files.values()
        ):
            return None
        return manifest

    def remember(self, key: str, manifest: Manifest) -> None:
        """Keep only what the work gave, not its files: enough to tell whether a temporary would come out the same.

        It is kept below the root too, so that what was built from the temporary stays fresh where someone deletes the
        store.
        """
        for path in self._notes(key):
            write_text(path, manifest.text())

    def knows(self, fingerprint: str) -> bool:
        """Whether any work with this fingerprint was added, from whatever inputs."""
        return self.fingerprint(fingerprint).exists()

    def add(self, key: str, manifest: Manifest, folder: Path) -> None:
        """Keep an artifact's files; the action is written last."""
        with self._shared():
            for name, entry in manifest.files.items():
                blob = self.blob(entry["sha256"])
                if not self._holds(entry["sha256"], entry["size"]):
                    blob.parent.mkdir(parents=True, exist_ok=True)
                    share(folder / name, blob)
            write_text(self.action(key), manifest.text())
            mark = self.fingerprint(manifest.fingerprint)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def restore(self, key: str, manifest: Manifest, folder: Path) -> bool:
        """Put an artifact's files into a folder; false where a blob turns out to be damaged (it is then dropped)."""
        with self._shared():
            for name, entry in manifest.files.items():
                blob = self.blob(entry["sha256"])
                try:
                    whole = digest_file(blob) == entry["sha256"]
                except FileNotFoundError:
                    return False
                if not whole:
                    blob.unlink(missing_ok=True)
                    return False
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                share(blob, folder / name)
            with contextlib.suppress(OSError):
                os.utime(self.action(key))  # used now: what is not used for long is collected first
        return True

    def refer(self, name: str, key: str, manifest: str) -> None:
        """Note that the artifact of this name, with its manifest below our root, is this work's: it is not collected.

        A temporary has no manifest that would stay.
        """
        folder = self.refs
        if not (folder / "root.json").exists():
            write_text(folder / "root.json", json.dumps({"host": host(), "root": str(self.root)}))
        path = folder / name
        temporary = path.with_name(f".{name}.{os.getpid()}")
        temporary.write_text(f"{key}\n{manifest}\n")
        temporary.replace(path)

    def referred(self, name: str) -> str:
        """The key of the work that the artifact of this name, below our root, is or last was the result of; "" if none."""
        try:
            return (self.refs / name).read_text(encoding="utf-8").partition("\n")[0]
        except OSError:
            return ""

    # Where things are

    def action(self, key: str) -> Path:
        """The file of a piece of work's manifest."""
        return self.folder / "actions" / key[:2] / f"{key}.json"

    def fingerprint(self, fingerprint: str) -> Path:
        """The mark of a fingerprint that some work had."""
        return self.folder / "fingerprints" / fingerprint[:2] / fingerprint

    def blob(self, digest: str) -> Path:
        """The file with this sha256."""
        return self.folder / "blobs" / digest[:2] / digest

    def _notes(self, key: str) -> list[Path]:
        return [self.root / ".temporaries" / f"{key}.json", self.folder / "notes" / key[:2] / f"{key}.json"]

    def _holds(self, digest: str, size: int) -> bool:
        try:
            return os.stat(self.blob(digest)).st_size == size
        except OSError:
            return False

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        """Nothing is collected meanwhile."""
        with self.locked(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def locked(self, how: int) -> Iterator[None]:
        """Hold the store's lock: shared by all who add and restore, alone by who collects."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, how)
            yield


def host() -> str:
    """This machine's name, among those that share a store."""
    return os.uname().nodename


def share(source: Path, target: Path) -> None:
    """The same bytes under another name: shared blocks or a hard link where the file system can, else a copy."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    if not _cloned(source, temporary):
        try:
            os.link(source, temporary)
        except OSError:
            _copy(source, temporary)
    temporary.replace(target)


def _cloned(source: Path, target: Path) -> bool:
    """Whether the file system could make a copy that shares its blocks; unlike a link, no later edit reaches the other."""
    try:
        with source.open("rb") as given, target.open("wb") as made:
            fcntl.ioctl(made, FICLONE, given.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    target.chmod(0o444)
    return True


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, target.open("wb") as made:
        shutil.copyfileobj(given, made, 1 << 20)
        made.flush()
        os.fsync(made.fileno())
    target.chmod(0o444)
