"""The content store behind the artifacts: what was built once is not built again.

::

    blobs/ab/ab12…            files by their sha256, read-only; artifacts are further names of the same bytes
    actions/cd/cd34….json     the manifest that a piece of work gave, by the key of that work
    fingerprints/de/de78…     an empty file for each fingerprint that some of that work had
    notes/ef/ef56….json       the same for temporaries, whose files are not kept
    roots/1a2b…/              one folder for each root that builds with this store
        root.json             where it is
        nutrition-adapter     the key of the work whose result lies there now, and where its manifest is

Checkouts may share a store (``store:`` in conf/build.yaml), also over NFS. Assumed there: a rename
replaces a file in one step, and ``flock`` works. Two machines that add the same blob write the same
bytes, and the later rename wins.

Users may share it too: all that is made in it gets the rights and the group of the store's own
folder, whatever the umask (git's core.sharedRepository): `chmod g+rwxs STORE` makes it a group's.
Who can only read it takes from it what is there.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from meetara_build.errors import ArtifactError
from meetara_build.store.manifest import (
    Manifest,
    digest_file,
    digest_json,
    parse_manifest,
    replace_file,
    work_key,
    write_durably,
    write_text,
)

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)

FICLONE = 0x40049409
"""Linux: have a file share another's blocks until one of the two is written (reflink; btrfs, XFS,
bcachefs)."""


class Store:
    """Blobs by their sha256, and manifests by the key of the work that made them, as one root sees
    them."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        name = "own" if folder.is_relative_to(root) else digest_json([host(), str(root)])[:16]
        self.refs = folder / "roots" / name
        """The folder of our root's references; a store below its root goes where the root goes."""

    # What was built before

    def recall(self, key: str) -> Manifest | None:
        """The manifest that this work gave before, whether or not its files were kept.

        Raises:
            ArtifactError: the store cannot be read.
        """
        for path in (self.action(key), *self._notes(key)):
            if (manifest := self._read_manifest(path)) is not None and find_work_key(
                manifest
            ) == key:
                return manifest
        return None

    def look_up(self, key: str) -> Manifest | None:
        """The manifest that this work gave before, if every blob of it is there and of the right
        size.

        Raises:
            ArtifactError: the store cannot be read.
        """
        manifest = self.recall(key)
        if manifest is None or not all(
            self._holds(entry["sha256"], entry["size"]) for entry in manifest.files.values()
        ):
            return None
        return manifest

    def remember(self, key: str, manifest: Manifest) -> None:
        """Keep only what the work gave, not its files: enough to tell whether a temporary would
        come out the same.

        It is kept below the root too, so that what was built from the temporary stays fresh where
        someone deletes the store.

        Raises:
            ArtifactError: the store's disk is full.
        """
        own, shared = self._notes(key)
        write_text(own, manifest.text())
        with self._if_ours_to_write():
            self._write(shared, manifest.text())

    def knows(self, fingerprint: str) -> bool:
        """Whether any work with this fingerprint was added, from whatever inputs.

        Raises:
            ArtifactError: the store cannot be read.
        """
        with self.explain_refusals("read"):
            return self.fingerprint(fingerprint).exists()

    def add(self, key: str, manifest: Manifest, folder: Path) -> None:
        """Keep an artifact's files, unless they are kept already; the action is written last.

        Raises:
            ArtifactError: the store cannot be written, or its disk is full.
        """
        with self._share_rights(), self.explain_refusals("written"):
            if self.look_up(key) == manifest and self.knows(manifest.fingerprint):
                self._mark_used(key)
                return
            for name, entry in manifest.files.items():
                blob = self.blob(entry["sha256"])
                if not self._holds(entry["sha256"], entry["size"]):
                    self._make(blob.parent)
                    share(folder / name, blob)
            self._write(self.action(key), manifest.text())
            self._write(self.fingerprint(manifest.fingerprint), "")

    def restore(self, key: str, manifest: Manifest, folder: Path) -> bool:
        """Put an artifact's files into a folder; false where a blob turns out to be damaged (it is
        then dropped).

        Raises:
            ArtifactError: the store cannot be read.
        """
        with self._share_rights():
            for name, entry in manifest.files.items():
                blob = self.blob(entry["sha256"])
                try:
                    with self.explain_refusals("read"):
                        whole = digest_file(blob) == entry["sha256"]
                except FileNotFoundError:
                    return False
                if not whole:
                    with self.explain_refusals("written"):
                        blob.unlink(missing_ok=True)
                    return False
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                share(blob, folder / name)
            self._mark_used(key)
        return True

    def refer(self, name: str, key: str, manifest: str) -> None:
        """Note that the artifact of this name, with its manifest below our root, is this work's: it
        is not collected.

        A temporary has no manifest that would stay.

        Raises:
            ArtifactError: the store's disk is full.
        """
        with self._if_ours_to_write():
            if not (self.refs / "root.json").exists():
                self._write(
                    self.refs / "root.json", json.dumps({"host": host(), "root": str(self.root)})
                )
            self._make(self.refs)
            with replace_file(self.refs / name) as temporary:
                temporary.write_text(f"{key}\n{manifest}\n")
                self._give_rights(temporary)

    def read_reference(self, name: str) -> str:
        """The key of the work that the artifact of this name, below our root, is or last was the
        result of; "" if none."""
        try:
            return (self.refs / name).read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, ValueError):
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
        return [
            self.root / ".temporaries" / f"{key}.json",
            self.folder / "notes" / key[:2] / f"{key}.json",
        ]

    def _mark_used(self, key: str) -> None:
        """What is not used for long is collected first."""
        with contextlib.suppress(OSError):
            os.utime(self.action(key))

    def _read_manifest(self, path: Path) -> Manifest | None:
        """The manifest in a file; None where it is not there, or damaged."""
        with (
            self.explain_refusals("read"),
            contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError),
        ):
            return parse_manifest(path.read_bytes())
        return None

    def _holds(self, digest: str, size: int) -> bool:
        """Whether a blob is there, and of this size: a file, and neither a link elsewhere nor a
        pipe that never ends."""
        with (
            self.explain_refusals("read"),
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
        ):
            state = os.lstat(self.blob(digest))
            return stat.S_ISREG(state.st_mode) and state.st_size == size
        return False

    # Who may use it

    @contextlib.contextmanager
    def _share_rights(self) -> Iterator[None]:
        """Nothing is collected meanwhile."""
        with self.lock(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def lock(self, how: int) -> Iterator[None]:
        """Hold the store's lock: shared by all who add and restore, alone by who collects.

        Raises:
            ArtifactError: it cannot be taken.
        """
        path, reads = self.folder / "lock", how == fcntl.LOCK_SH
        with contextlib.ExitStack() as held:
            with self.explain_refusals("read" if reads else "written"):
                if not path.exists():
                    self._make(self.folder)
                    with contextlib.suppress(FileExistsError):  # another job was quicker
                        path.touch(exist_ok=False)
                        self._give_rights(path)
                # Who only takes from a store need not be able to write it; to be alone over NFS one
                # has to.
                lock = held.enter_context(path.open("rb" if reads else "r+b"))
            fcntl.flock(lock, how)
            yield

    def _write(self, path: Path, text: str) -> None:
        self._make(path.parent)
        with replace_file(path) as temporary:
            write_durably(temporary, text)
            self._give_rights(temporary)

    def _make(self, folder: Path) -> None:
        """Make a folder of the store, with those above it."""
        if folder == self.folder:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            self._make(folder.parent)
            with contextlib.suppress(FileExistsError):  # another job was quicker
                folder.mkdir()
                self._give_rights(folder)

    def _give_rights(self, path: Path) -> None:
        """Give what we have just made in the store the group and the rights of the store's
        folder."""
        of_store, made = os.stat(self.folder), os.stat(path)
        rights = stat.S_IMODE(of_store.st_mode)
        with contextlib.suppress(OSError):  # a group we are not in, a file system without groups
            if made.st_gid != of_store.st_gid:
                os.chown(path, -1, of_store.st_gid)
        with contextlib.suppress(OSError):  # a file system without rights, as of cloud drives
            path.chmod(rights if stat.S_ISDIR(made.st_mode) else rights & 0o666)

    @contextlib.contextmanager
    def explain_refusals(self, what: str) -> Iterator[None]:
        """Have the system's refusal of a file of the store name the file, whose it is, and what
        mends it.

        Raises:
            ArtifactError: the file cannot be ``what``: read, or written.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in (*REFUSED, *FULL):
                raise
            raise self._explain(error, what) from None

    @contextlib.contextmanager
    def _if_ours_to_write(self) -> Iterator[None]:
        """A store that can only be read keeps no note of who reads it, and serves all the same."""
        with self.explain_refusals("written"):
            try:
                yield
            except OSError as error:
                if error.errno not in REFUSED:
                    raise

    def _explain(self, error: OSError, what: str) -> Exception:
        path = Path(error.filename) if isinstance(error.filename, str) else self.folder
        if not path.is_relative_to(self.folder):
            return error
        reason = os.strerror(error.errno or 0)
        if error.errno in FULL:
            return ArtifactError(
                f"{self.folder}: the store cannot be written ({reason}); make room on its disk "
                "(`meetara-build gc` has it forget old results), or set `store:` in "
                "conf/build.yaml to a folder elsewhere, then build again"
            )
        path = next(one for one in (path, *path.parents) if _can_be_seen(one))
        return ArtifactError(
            f"{path}: cannot be {what} ({reason}); it is {_describe(path)}. A store for several "
            f"users is a folder of their group: `chgrp -R GROUP {self.folder} && chmod -R g+rwX "
            f"{self.folder}`, by whose it is. Or set `store:` in conf/build.yaml to a folder of "
            "yours"
        )


def _can_be_seen(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(path.stat())
    return False


def _describe(path: Path) -> str:
    """Whose a file is, and with which rights."""
    state = path.stat()
    try:
        owner = path.owner()
    except KeyError:
        owner = f"user {state.st_uid}"
    return f"{owner}'s, with the rights {stat.filemode(state.st_mode)}"


def find_work_key(manifest: Manifest) -> str:
    """The key of the work that a manifest is the result of."""
    return work_key(manifest.stage, manifest.target, manifest.fingerprint, manifest.inputs)


def host() -> str:
    """This machine's name, among those that share a store."""
    return os.uname().nodename


def share(source: Path, target: Path) -> bool:
    """The same bytes under another name, read-only: shared blocks or a hard link where the file
    system can, else a copy; whether both take the room of one.

    Another user's file is copied: of a link neither could change the rights, nor the system agree
    to it.
    """
    with replace_file(target) as temporary:
        shared = _clone(source, temporary) or _link(source, temporary)
        if not shared:
            _copy(source, temporary)
        temporary.chmod(0o444)
    return shared


def _clone(source: Path, target: Path) -> bool:
    """Whether the file system could make a copy that shares its blocks; unlike a link, no later
    edit reaches the other."""
    try:
        with source.open("rb") as given, target.open("wb") as made:
            fcntl.ioctl(made, FICLONE, given.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    try:
        if source.stat().st_uid == os.geteuid():
            os.link(source, target)
            return True
    except OSError:
        pass
    return False


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, target.open("wb") as made:
        shutil.copyfileobj(given, made, 1 << 20)
        made.flush()
        os.fsync(made.fileno())
