"""Artifacts are whole or not there, manifests prove them, and the store gives back exactly what it was given."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meetara_build.artifact import (
    MEASURED,
    Manifest,
    Place,
    Store,
    commit,
    describe,
    digest_json,
    digest_source,
    faults,
    place,
    read_manifest,
    seal,
    work_key,
    write_if_changed,
    write_text,
)
from meetara_build.errors import ArtifactError

NAMES = st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4})?\.(json|jsonl|gguf)", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=5)
QUICK = settings(deadline=None, max_examples=40)


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def manifest_of(folder: Path, **fields: Any) -> Manifest:
    parts = {"made_from": {"recipe": {"a": 1}}, "inputs": {"base": "0" * 64}, "metrics": {"loss": 1.5}, **fields}
    return Manifest("dataset", "nutrition", "f" * 64, files=describe(folder), **parts)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifact")


def test_each_stage_has_its_place() -> None:
    assert place("dataset", "nutrition") == Place("nutrition/dataset", "nutrition/dataset/manifest.json")
    assert place("merge", "nutrition").folder == "nutrition/merged"
    assert place("evaluate", "nutrition") == Place("nutrition", "nutrition/evaluation.manifest.json")
    assert place("base", "base/tiny") == Place("base/tiny", "base/tiny/manifest.json")
    assert place("gguf", "base/tiny").folder == "base/tiny/gguf"


@QUICK
@given(FILES)
def test_the_store_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("store")
    made = fill(root / "made", files)
    manifest, store = manifest_of(made), Store(root / "store")
    assert store.look_up("k" * 64) is None
    store.add("k" * 64, manifest, made)
    shutil.rmtree(made)
    assert store.look_up("k" * 64) == manifest
    assert store.restore(manifest, root / "back")
    assert contents(root / "back") == files
    assert faults(root / "back", manifest) == []


def test_a_damaged_blob_is_refused_and_dropped(empty: Path) -> None:
    made = fill(empty / "made", {"a.gguf": b"weights", "b.json": b"{}"})
    manifest, store = manifest_of(made), Store(empty / "store")
    store.add("k" * 64, manifest, made)
    (
        empty / "store" / "blobs" / manifest.files["a.gguf"]["sha256"][:2] / manifest.files["a.gguf"]["sha256"]
    ).write_bytes(b"weighty")
    assert not store.restore(manifest, empty / "back")
    assert store.look_up("k" * 64) is None, "what cannot be restored is not offered again"
    store.add("k" * 64, manifest, fill(empty / "again", {"a.gguf": b"weights", "b.json": b"{}"}))
    assert store.restore(manifest, empty / "back")


def test_what_is_only_remembered_is_recalled_but_not_offered(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"weights"}))
    store = Store(empty / "store")
    store.remember("k" * 64, manifest)
    assert store.recall("k" * 64) == manifest
    assert store.look_up("k" * 64) is None
    assert not (empty / "store").exists(), "deleting the store loses nothing that only was remembered"


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"stage": "dataset"}', "7"])
def test_a_broken_note_in_the_store_is_as_none(empty: Path, broken: str) -> None:
    store = Store(empty / "store")
    made = fill(empty / "made", {"a.json": b"{}"})
    store.add("k" * 64, manifest_of(made), made)
    next((empty / "store" / "actions").rglob("*.json")).write_text(broken)
    assert store.recall("k" * 64) is None
    assert store.look_up("k" * 64) is None


def test_equal_files_are_kept_once(empty: Path) -> None:
    store = Store(empty / "store")
    for number in range(3):
        made = fill(empty / f"made{number}", {"a.gguf": b"same", f"{number}.gguf": b"same"})
        store.add(str(number) * 64, manifest_of(made), made)
    assert len([path for path in (empty / "store" / "blobs").rglob("*") if path.is_file()]) == 1


@QUICK
@given(
    content=st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=4),
    seconds=st.floats(0, 9),
)
def test_measured_figures_are_ignored_by_the_digest_and_seen_by_the_proof(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], seconds: float
) -> None:
    content.pop(MEASURED, None)
    root = tmp_path_factory.mktemp("measured")
    one = fill(root / "one", {"x.json": json.dumps({**content, MEASURED: {"seconds": seconds}}).encode()})
    other = fill(root / "other", {"x.json": json.dumps({**content, MEASURED: {"seconds": seconds + 1}}).encode()})
    assert manifest_of(one).digest() == manifest_of(other).digest()
    assert faults(other, manifest_of(one)) == [f"{other / 'x.json'}: its content is not what was built"]
    changed = fill(
        root / "changed", {"x.json": json.dumps({**content, "more": 1, MEASURED: {"seconds": seconds}}).encode()}
    )
    assert (manifest_of(changed).digest() == manifest_of(one).digest()) == (content.get("more") == 1)


@QUICK
@given(FILES, st.data())
def test_a_change_of_any_byte_or_name_changes_the_digest(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("change")
    before = manifest_of(fill(root / "before", files)).digest()
    assert manifest_of(fill(root / "same", dict(reversed(list(files.items()))))).digest() == before
    name = data.draw(st.sampled_from(sorted(files)))
    assert manifest_of(fill(root / "byte", {**files, name: files[name] + b"x"})).digest() != before
    renamed = {("other.gguf" if key == name else key): value for key, value in files.items()}
    assert manifest_of(fill(root / "name", renamed)).digest() != before


def test_a_digest_of_some_files_is_of_these_alone(empty: Path) -> None:
    one = manifest_of(fill(empty / "one", {"adapter_model.safetensors": b"w", "training.json": b"1"}))
    other = manifest_of(fill(empty / "other", {"adapter_model.safetensors": b"w", "training.json": b"2"}))
    assert one.matching(["adapter_*"]) == ["adapter_model.safetensors"]
    assert one.digest(["adapter_*"]) == other.digest(["adapter_*"])
    assert one.digest() != other.digest()


def test_faults_name_what_is_missing_and_what_has_changed(empty: Path) -> None:
    made = fill(empty, {"a.gguf": b"one", "b.gguf": b"two", "c.gguf": b"six"})
    manifest = manifest_of(made)
    (made / "a.gguf").write_bytes(b"ONE")
    (made / "b.gguf").unlink()
    assert faults(made, manifest) == [
        f"{made / 'a.gguf'}: its content is not what was built",
        f"{made / 'b.gguf'}: missing",
    ]
    assert faults(made, manifest, ["c.gguf"]) == []


def test_a_manifest_says_the_same_in_the_same_bytes_and_names_no_time_or_place(empty: Path) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"one"}))
    again = manifest._replace(files=dict(reversed(list(manifest.files.items()))))
    assert manifest.text() == again.text()
    assert str(empty) not in manifest.text()
    write_text(empty / "manifest.json", manifest.text())
    assert read_manifest(empty / "manifest.json") == manifest


def test_a_missing_and_a_damaged_manifest_are_told_apart(empty: Path) -> None:
    with pytest.raises(ArtifactError, match="not built yet; run `meetara-build build`"):
        read_manifest(empty / "manifest.json")
    for broken in ("", "{", "[]", '{"stage": "dataset"}'):
        (empty / "manifest.json").write_text(broken)
        with pytest.raises(ArtifactError, match="damaged manifest; delete it and run `meetara-build build`"):
            read_manifest(empty / "manifest.json")


def finish(root: Path, work: Path, files: Mapping[str, bytes]) -> Manifest:
    manifest = manifest_of(fill(work, files))
    commit(work, root, place("dataset", "nutrition"), manifest)
    return manifest


def test_a_commit_puts_the_files_in_place_and_takes_the_old_ones_away(empty: Path) -> None:
    root = empty / "root"
    finish(root, empty / "one", {"a.jsonl": b"1", "old.jsonl": b"2"})
    fill(root / "nutrition" / "dataset", {"notes.txt": b"a person's own"})
    manifest = finish(root, empty / "two", {"a.jsonl": b"3", "deep/new.jsonl": b"4"})
    folder = root / "nutrition" / "dataset"
    assert set(contents(folder)) == {"a.jsonl", "deep/new.jsonl", "manifest.json", "notes.txt"}
    assert read_manifest(folder / "manifest.json") == manifest
    assert faults(folder, manifest) == []


def test_a_commit_that_is_cut_short_leaves_nothing_that_looks_finished(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = empty / "root"
    finish(root, empty / "one", {"a.jsonl": b"1", "b.jsonl": b"1"})
    real, moved = os.replace, []

    def cut_short(source: Path, target: Path) -> None:
        if moved:
            raise OSError(28, "No space left on device")
        moved.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", cut_short)
    with pytest.raises(OSError, match="No space left"):
        finish(root, empty / "two", {"a.jsonl": b"2", "b.jsonl": b"2"})
    assert moved
    assert not (root / "nutrition" / "dataset" / "manifest.json").exists()


def test_a_commit_replaces_what_a_damaged_manifest_left(empty: Path) -> None:
    root = empty / "root"
    fill(root / "nutrition" / "dataset", {"manifest.json": b"{"})
    manifest = finish(root, empty / "one", {"a.jsonl": b"1"})
    assert read_manifest(root / "nutrition" / "dataset" / "manifest.json") == manifest


def test_sealed_files_cannot_be_written_by_accident(empty: Path) -> None:
    fill(empty, {"a.gguf": b"weights", "deep/b.json": b"{}"})
    seal(empty)
    assert {path.stat().st_mode & 0o777 for path in empty.rglob("*") if path.is_file()} == {0o444}


def test_text_is_written_whole_or_not_at_all(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = empty / "deep" / "x.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_file_that_says_so_already_is_not_touched(empty: Path) -> None:
    path = empty / "x.json"
    write_if_changed(path, "same")
    os.utime(path, (1, 1))
    write_if_changed(path, "same")
    assert path.stat().st_mtime == 1
    write_if_changed(path, "other")
    assert path.read_text() == "other"


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none(), max_size=5))
def test_a_value_s_digest_does_not_depend_on_the_order_of_its_keys(value: dict[str, Any]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(list(value.items()))))
    assert digest_json(value) != digest_json([value])


def test_a_piece_of_work_is_known_by_all_that_decides_it() -> None:
    keys = {
        work_key("dataset", "nutrition", "f", {"base": "1"}),
        work_key("adapter", "nutrition", "f", {"base": "1"}),
        work_key("dataset", "sleep", "f", {"base": "1"}),
        work_key("dataset", "nutrition", "g", {"base": "1"}),
        work_key("dataset", "nutrition", "f", {"base": "2"}),
        work_key("dataset", "nutrition", "f", {}),
    }
    assert len(keys) == 6


def test_a_source_s_digest_is_of_its_content_and_a_folder_s_of_its_files_names_too(empty: Path) -> None:
    fill(empty, {"a/x.json": b"1", "a/deep/y.json": b"2", "b/x.json": b"1", "b/deep/y.json": b"2"})
    assert digest_source(empty / "a") == digest_source(empty / "b")
    assert digest_source(empty / "a" / "x.json") == digest_source(empty / "b" / "x.json")
    (empty / "b" / "deep" / "y.json").rename(empty / "b" / "deep" / "z.json")
    assert digest_source(empty / "a") != digest_source(empty / "b")
