"""The store gives back exactly what it was given, to every checkout that shares it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from artifacts import FILES, QUICK, contents, fill, manifest_of
from commands import small_disk
from hypothesis import given

from meetara_build.errors import ArtifactError
from meetara_build.store.content import Store, find_work_key, share
from meetara_build.store.manifest import faults

KEY = find_work_key(manifest_of(Path("/nowhere")))
"""That of the work which all manifests here are results of."""


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
    assert store.look_up(KEY) is None
    store.add(KEY, manifest, made)
    shutil.rmtree(made)
    assert store.look_up(KEY) == manifest
    assert store.restore(KEY, manifest, root / "back")
    assert contents(root / "back") == files
    assert faults(root / "back", manifest) == {}


def test_a_damaged_blob_is_refused_and_dropped(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights", "b.json": b"{}"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    store.add(KEY, manifest, made)
    (
        empty
        / "store"
        / "blobs"
        / manifest.files["a.gguf"]["sha256"][:2]
        / manifest.files["a.gguf"]["sha256"]
    ).write_bytes(b"weighty")
    assert not store.restore(KEY, manifest, empty / "back")
    assert store.look_up(KEY) is None, "what cannot be restored is not offered again"
    store.add(KEY, manifest, fill(empty / "again", {"a.gguf": b"weights", "b.json": b"{}"}))
    assert store.restore(KEY, manifest, empty / "back")


def test_what_is_only_remembered_is_recalled_but_not_offered(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"weights"}))
    store = Store(empty / "store", empty)
    store.remember(KEY, manifest)
    assert store.recall(KEY) == manifest
    assert store.look_up(KEY) is None
    shutil.rmtree(empty / "store")
    assert store.recall(KEY) == manifest, (
        "deleting the store loses nothing that only was remembered"
    )


def test_another_checkout_recalls_what_one_remembered(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"weights"}))
    Store(empty / "store", empty / "one").remember(KEY, manifest)
    assert Store(empty / "store", empty / "other").recall(KEY) == manifest


def test_another_checkout_restores_what_one_built(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights", "b.json": b"{}"})
    manifest = manifest_of(made)
    Store(empty / "store", empty / "one").add(KEY, manifest, made)
    other = Store(empty / "store", empty / "other")
    assert other.look_up(KEY) == manifest
    assert other.restore(KEY, manifest, empty / "other" / "out")
    assert contents(empty / "other" / "out") == {"a.gguf": b"weights", "b.json": b"{}"}


def test_a_blob_of_another_size_is_missing(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    store.add(KEY, manifest, made)
    blob = store.blob(manifest.files["a.gguf"]["sha256"])
    blob.unlink()
    blob.write_bytes(b"half")
    assert store.look_up(KEY) is None
    store.add(KEY, manifest, made)
    assert blob.read_bytes() == b"weights", "adding mends it"


def test_a_fingerprint_is_known_once_work_of_it_was_added(empty: Path) -> None:
    made = fill(empty / "made", {"a.json": b"{}"})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    assert not store.knows(manifest.fingerprint)
    store.add(KEY, manifest, made)
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
    store.add(KEY, manifest_of(made), made)
    next((empty / "store" / "actions").rglob("*.json")).write_text(broken)
    assert store.recall(KEY) is None
    assert store.look_up(KEY) is None


def test_equal_files_are_kept_once(empty: Path) -> None:
    store = Store(empty / "store", empty)
    for number in range(3):
        made = fill(empty / f"made{number}", {"a.gguf": b"same", f"{number}.gguf": b"same"})
        store.add(str(number) * 64, manifest_of(made), made)
    assert len([path for path in (empty / "store" / "blobs").rglob("*") if path.is_file()]) == 1


def test_an_action_cannot_have_files_of_others_written_or_deleted(empty: Path) -> None:
    store = Store(empty / "store", empty)
    made = fill(empty / "made", {"a.json": b"{}"})
    manifest = manifest_of(made)
    store.add(KEY, manifest, made)
    mine = fill(empty / "mine", {"x.py": b"my own"}) / "x.py"
    entry = manifest.files["a.json"]
    for files in (
        {"../../mine/x.py": entry},
        {"a.json": {"sha256": f"/../../../../{mine}", "size": 6}},
    ):
        store.action(KEY).write_text(json.dumps(manifest._replace(files=files)._asdict()))
        assert store.look_up(KEY) is None
    assert mine.read_bytes() == b"my own"


@pytest.mark.parametrize("other", ["link", "pipe"])
def test_a_blob_that_is_no_file_is_missing(empty: Path, other: str) -> None:
    made = fill(empty / "made", {"a.gguf": b""})
    manifest, store = manifest_of(made), Store(empty / "store", empty)
    store.add(KEY, manifest, made)
    blob = store.blob(manifest.files["a.gguf"]["sha256"])
    blob.unlink()
    if other == "link":
        blob.symlink_to(made / "a.gguf")
    else:
        os.mkfifo(blob)
    assert store.look_up(KEY) is None
    store.add(KEY, manifest, made)
    assert blob.is_file()
    assert not blob.is_symlink()


def test_another_work_s_result_is_not_known(empty: Path) -> None:
    store = Store(empty / "store", empty)
    made = fill(empty / "made", {"a.json": b"{}"})
    other = manifest_of(made, inputs={"base": "1" * 64})
    store.add(KEY, other, made)
    store.remember(KEY, other)
    assert store.recall(KEY) is None
    assert store.look_up(KEY) is None


SHARED = """
import os, sys
from pathlib import Path
from artifacts import fill, manifest_of
from meetara_build.store.content import Store, find_work_key
os.umask(int(sys.argv[2], 8))
above = Path(sys.argv[1])
made = fill(above / "made", {"a.gguf": b"weights", "deep/b.json": b"{}"})
manifest, store = manifest_of(made), Store(above / "store", above / "root")
store.add(find_work_key(manifest), manifest, made)
store.remember(find_work_key(manifest), manifest)
store.refer("nutrition-dataset", find_work_key(manifest), "manifest.json")
"""


@pytest.mark.parametrize("umask", ["022", "077", "007"])
@pytest.mark.parametrize("rights", [0o770, 0o2775, 0o700, 0o777])
def test_all_in_a_store_has_the_rights_of_its_folder_whatever_the_umask(
    empty: Path, umask: str, rights: int
) -> None:
    store = empty / "store"
    store.mkdir()
    store.chmod(rights)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    words = [sys.executable, "-c", SHARED, str(empty), umask]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": paths})
    found = {path.relative_to(store): path.stat().st_mode & 0o7777 for path in store.rglob("*")}
    assert len(found) > 10
    for path, mode in found.items():
        blob = path.parts[0] == "blobs" and len(path.parts) == 3
        wanted = 0o444 if blob else rights & 0o666 if (store / path).is_file() else rights
        assert mode == wanted, (path, oct(mode))


def test_a_full_disk_of_the_store_s_is_named_and_holds_no_half_file(empty: Path) -> None:
    (empty / "store").mkdir()
    with small_disk(empty / "store", 1) as folder:
        made = fill(empty / "made", {"a.gguf": os.urandom(2_000_000)})
        store = Store(folder, empty)
        with pytest.raises(
            ArtifactError,
            match=r"store: the store cannot be written \(No space left on device\); make room",
        ):
            store.add(KEY, manifest_of(made), made)
        assert [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_another_user_s_file_is_copied_not_linked(empty: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    source = fill(empty, {"a.gguf": b"weights"}) / "a.gguf"
    os.chown(source, 12345, 12345)
    share(source, empty / "b.gguf")
    assert (empty / "b.gguf").stat().st_ino != source.stat().st_ino
    assert (empty / "b.gguf").stat().st_mode & 0o777 == 0o444
