"""Garbage collection: what the store may forget, oldest use first, and never what is current or
pinned."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from meetara_build.outside import parse_json
from meetara_build.store.content import Store, host
from meetara_build.store.manifest import parse_manifest

IN_FLIGHT_SECONDS = 3600.0
"""A blob that no finished work names may belong to work that is just being added on another
machine."""


class Work(NamedTuple):
    """The manifest of a piece of work, in the store or beside it: when it was last used, and the
    blobs it names."""

    path: Path
    key: str
    used: float
    blobs: frozenset[str]
    fingerprint: str
    sources: frozenset[str]


class Collected(NamedTuple):
    """What was forgotten, or would be: pieces of work, blobs, and their bytes; and what is left.
    ``size`` in bytes.

    A blob that is also an artifact's file takes no less room before it is forgotten than
    afterwards: ``freed`` counts only those that are not.
    """

    works: int
    blobs: int
    size: int
    freed: int
    left_works: int
    left_size: int


def collect(
    store: Store,
    wanted: Collection[str],
    pinned: Collection[str],
    *,
    max_size: int | None = None,
    max_age: float | None = None,
    dry_run: bool = False,
) -> Collected:
    """Forget results until those left take at most ``max_size`` bytes and none was last used
    ``max_age`` seconds ago.

    What any root that shares the store refers to, the work keys ``wanted`` and the blobs ``pinned``
    (by sha256) stay, even where that is more than the bound.

    Raises:
        ArtifactError: the store cannot be read or written.
    """
    with store.lock(fcntl.LOCK_EX), store.explain_refusals("written"):
        keep = set(wanted) | set(_list_referred(store, wanted, dry_run=dry_run))
        works = sorted(_works(store), key=lambda work: (work.key in keep, work.used, work.key))
        # What a current result began from was pinned by whoever built it, here or in another
        # checkout.
        pins = {*pinned, *(source for work in works if work.key in keep for source in work.sources)}
        sizes = {path.name: path.stat().st_size for path in _files(store.folder / "blobs")}
        held = _count(works)
        size = sum(sizes.get(blob, 0) for blob in held)
        now, gone = time.time(), []
        for work in works:
            old = max_age is not None and now - work.used > max_age
            large = max_size is not None and size > max_size
            if work.key in keep or not (old or large) or work.blobs & pins:
                continue
            gone.append(work)
            for blob in work.blobs:
                held[blob] -= 1
                size -= sizes.get(blob, 0) if held[blob] == 0 else 0
        left = {blob for blob, count in held.items() if count} | pins
        dead = [
            path
            for path in _files(store.folder / "blobs")
            if path.name not in left and _collectable(path, held, now)
        ]
        freed = sum(path.stat().st_size for path in dead if path.stat().st_nlink == 1)
        dropped = sum(sizes[path.name] for path in dead)
        half = [
            path
            for path in store.folder.rglob(".*.*")
            if path.is_file() and _is_abandoned(path, now)
        ]
        if not dry_run:
            known = {work.fingerprint for work in works if work not in gone}
            marks = [
                path for path in _files(store.folder / "fingerprints") if path.name not in known
            ]
            for path in (*(work.path for work in gone), *dead, *marks, *half):
                path.unlink(missing_ok=True)
        return Collected(
            len(gone),
            len(dead),
            dropped,
            freed,
            len(works) - len(gone),
            sum(sizes.values()) - dropped,
        )


def _is_abandoned(path: Path, now: float) -> bool:
    """Whether a half-written file has been left by whoever wrote it."""
    return now - path.stat().st_ctime > IN_FLIGHT_SECONDS


def _collectable(path: Path, held: dict[str, int], now: float) -> bool:
    """Whether its last user was just forgotten, or it never had one and is no longer in flight."""
    return path.name in held or now - path.stat().st_ctime > IN_FLIGHT_SECONDS


def _list_referred(store: Store, wanted: Collection[str], *, dry_run: bool) -> Iterator[str]:
    """Keys that some root's artifacts are the results of; references to what is gone from this
    machine are dropped."""
    for folder in (store.folder / "roots").glob("*"):
        try:
            place = parse_json((folder / "root.json").read_bytes())
            here, root = place["host"] == host(), Path(place["root"])
        except (OSError, ValueError, LookupError, TypeError):
            here, root = False, Path()
        if folder == store.refs:
            here, root = True, store.root
        if here and not root.exists():
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        for path in folder.glob("[!.]*"):
            if path.name == "root.json":
                continue
            key, _, manifest = path.read_text(encoding="utf-8").strip().partition("\n")
            if (
                here
                and root == store.root
                and manifest
                and key not in wanted
                and not (root / manifest).exists()
            ):
                if not dry_run:
                    path.unlink(missing_ok=True)
                continue
            yield key


def _works(store: Store) -> Iterator[Work]:
    for path in (
        *_files(store.folder / "actions"),
        *_files(store.folder / "notes"),
        *_files(store.root / ".temporaries"),
    ):
        named, fingerprint, sources = frozenset[str](), "", frozenset[str]()
        if "actions" in path.parts[-3:]:
            with contextlib.suppress(ValueError):
                manifest = parse_manifest(path.read_bytes())
                named = frozenset(entry["sha256"] for entry in manifest.files.values())
                fingerprint = manifest.fingerprint
                sources = frozenset(manifest.made_from["sources"].values())
        yield Work(path, path.stem, path.stat().st_mtime, named, fingerprint, sources)


def _count(works: list[Work]) -> dict[str, int]:
    held: dict[str, int] = {}
    for work in works:
        for blob in work.blobs:
            held[blob] = held.get(blob, 0) + 1
    return held


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
