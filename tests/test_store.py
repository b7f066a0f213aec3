"""The store gives back exactly what it was given, to every checkout that shares it."""

import shutil
from pathlib import Path

import pytest
from artifacts import FILES, QUICK, contents, fill, manifest_of
from hypothesis import given

from meetara_build.artifact import faults
from meetara_build.store import Store, share


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@QUICK
@given(FILES)
def test_the_store_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("store")
    made = fill(root / "made", files)
    manifest, store = manifest_of(made), Store(root / "store", root)
    assert store.look_up("k" * 64) is None
    store.add("k" * 64, manifest, made)
    shutil.rmtree(made)
    assert store.look_up("k" * 64) == manifest
    assert store.restore("k" * 64, manifest, root / "back")
    assert contents(root / "back") == files
    assert faults(root / "back", manifest) == {}


def test_a_damaged_blob_is_refused_and_dropped(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights", "b.json": b"{}"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    store.add("k" * 64, manifest, made)
    (
        empty / "store" / "blobs" / manifest.files["a.gguf"]["sha256"][:2] / manifest.files["a.gguf"]["sha256"]
    ).write_bytes(b"weighty")
    assert not store.restore("k" * 64, manifest, empty / "back")
    assert store.look_up("k" * 64) is None, "what cannot be restored is not offered again"
    store.add("k" * 64, manifest, fill(empty / "again", {"a.gguf": b"weights", "b.json": b"{}"}))
    assert store.restore("k" * 64, manifest, empty / "back")


def test_what_is_only_remembered_is_recalled_but_not_offered(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"weights"}))
    store = Store(empty / "store", empty)
    store.remember("k" * 64, manifest)
    assert store.recall("k" * 64) == manifest
    assert store.look_up("k" * 64) is None
    shutil.rmtree(empty / "store")
    assert store.recall("k" * 64) == manifest, "deleting the store loses nothing that only was remembered"


def test_another_checkout_recalls_what_one_remembered(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"weights"}))
    Store(empty / "store", empty / "one").remember("k" * 64, manifest)
    assert Store(empty / "store", empty / "other").recall("k" * 64) == manifest


def test_another_checkout_restores_what_one_built(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights", "b.json": b"{}"})
    manifest = manifest_of(made)
    Store(empty / "store", empty / "one").add("k" * 64, manifest, made)
    other = Store(empty / "store", empty / "other")
    assert other.look_up("k" * 64) == manifest
    assert other.restore("k" * 64, manifest, empty / "other" / "out")
    assert contents(empty / "other" / "out") == {"a.gguf": b"weights", "b.json": b"{}"}


def test_a_blob_of_another_size_is_missing(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    store.add("k" * 64, manifest, made)
    blob = store.blob(manifest.files["a.gguf"]["sha256"])
    blob.unlink()
    blob.write_bytes(b"half")
    assert store.look_up("k" * 64) is None
    store.add("k" * 64, manifest, made)
    assert blob.read_bytes() == b"weights", "adding mends it"


def test_a_fingerprint_is_known_once_work_of_it_was_added(empty: Path) -> None:
    made = fill(empty / "made", {"a.json": b"{}"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    assert not store.knows(manifest.fingerprint)
    store.add("k" * 64, manifest, made)
    assert store.knows(manifest.fingerprint)


def test_where_bytes_cannot_be_shared_they_are_copied_and_read_only(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("not on this file system")

    source = fill(empty, {"a.gguf": b"weights"}) / "a.gguf"
    monkeypatch.setattr("os.link", refused)
    share(source, empty / "b.gguf")
    assert (empty / "b.gguf").read_bytes() == b"weights"
    assert (empty / "b.gguf").stat().st_ino != source.stat().st_ino
    assert (empty / "b.gguf").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"stage": "dataset"}', "7"])
def test_a_broken_note_in_the_store_is_as_none(empty: Path, broken: str) -> None:
    store = Store(empty / "store", empty)
    made = fill(empty / "made", {"a.json": b"{}"})
    store.add("k" * 64, manifest_of(made), made)
    next((empty / "store" / "actions").rglob("*.json")).write_text(broken)
    assert store.recall("k" * 64) is None
    assert store.look_up("k" * 64) is None


def test_equal_files_are_kept_once(empty: Path) -> None:
    store = Store(empty / "store", empty)
    for number in range(3):
        made = fill(empty / f"made{number}", {"a.gguf": b"same", f"{number}.gguf": b"same"})
        store.add(str(number) * 64, manifest_of(made), made)
    assert len([path for path in (empty / "store" / "blobs").rglob("*") if path.is_file()]) == 1
