"""Artifacts are whole or not there, manifests prove them, and the store gives back exactly what it
was given."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from artifacts import FILES, QUICK, contents, fill, manifest_of
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.errors import ArtifactError
from meetara_build.store.manifest import (
    CHANGED,
    MEASURED,
    MISSING,
    Manifest,
    Place,
    commit,
    digest_json,
    faults,
    read_manifest,
    seal,
    work_key,
    write_text,
)


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifact")


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
    one = fill(
        root / "one", {"x.json": json.dumps({**content, MEASURED: {"seconds": seconds}}).encode()}
    )
    other = fill(
        root / "other",
        {"x.json": json.dumps({**content, MEASURED: {"seconds": seconds + 1}}).encode()},
    )
    assert manifest_of(one).digest() == manifest_of(other).digest()
    assert faults(other, manifest_of(one)) == {"x.json": CHANGED}
    changed = fill(
        root / "changed",
        {"x.json": json.dumps({**content, "more": 1, MEASURED: {"seconds": seconds}}).encode()},
    )
    assert (manifest_of(changed).digest() == manifest_of(one).digest()) == (
        content.get("more") == 1
    )


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
    one = manifest_of(
        fill(empty / "one", {"adapter_model.safetensors": b"w", "training.json": b"1"})
    )
    other = manifest_of(
        fill(empty / "other", {"adapter_model.safetensors": b"w", "training.json": b"2"})
    )
    assert one.matching(["adapter_*"]) == ["adapter_model.safetensors"]
    assert one.digest(["adapter_*"]) == other.digest(["adapter_*"])
    assert one.digest() != other.digest()


def test_faults_name_what_is_missing_and_what_has_changed(empty: Path) -> None:
    made = fill(empty, {"a.gguf": b"one", "b.gguf": b"two", "c.gguf": b"six"})
    manifest = manifest_of(made)
    (made / "a.gguf").write_bytes(b"ONE")
    (made / "b.gguf").unlink()
    assert faults(made, manifest) == {"a.gguf": CHANGED, "b.gguf": MISSING}
    assert faults(made, manifest, ["c.gguf"]) == {}


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
        with pytest.raises(
            ArtifactError, match="damaged manifest; delete it and run `meetara-build build`"
        ):
            read_manifest(empty / "manifest.json")


OUTSIDE = [
    "../x.py",
    "a/../../x.py",
    "/etc/x",
    "",
    ".",
    "a/",
    "a//b",
    "./a",
    "a/./b",
    "a\0b",
    "\ud800",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_that_names_a_file_outside_its_folder_is_damaged(empty: Path, name: str) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"one"}))
    hostile = json.dumps(manifest._replace(files={name: manifest.files["a.gguf"]})._asdict())
    (empty / "manifest.json").write_text(hostile)
    with pytest.raises(ArtifactError, match="damaged manifest"):
        read_manifest(empty / "manifest.json")


@pytest.mark.parametrize(
    "changed",
    [
        {"made_from": {}},
        {"made_from": []},
        {"made_from": None},
        {"made_from": {"recipe": {}}},
        {"made_from": {"recipe": {"a": 2}, "code": {}, "libraries": {}, "sources": {}}},
        {"inputs": []},
        {"inputs": {"base": 7}},
        {"inputs": {"base": "../x"}},
        {"files": []},
        {"files": {"a": []}},
        {"files": {"a": {"sha256": "0" * 64}}},
        {"files": {"a": {"size": 1}}},
        {"files": {"a": {"sha256": "0" * 64, "size": True}}},
        {"files": {"a": {"sha256": "../../x", "size": 1}}},
        {"files": {"a": {"sha256": "A" * 64, "size": 1}}},
        {"files": {"a": {"sha256": "0" * 64, "size": 1, "content": ["x"]}}},
        {"metrics": []},
        {"stage": None},
        {"target": 7},
        {"fingerprint": "0" * 64},
        {"fingerprint": []},
        {"more": 1},
    ],
)
def test_a_manifest_of_another_shape_is_damaged(empty: Path, changed: dict[str, Any]) -> None:
    manifest = manifest_of(fill(empty / "made", {"a.gguf": b"one"}))
    (empty / "manifest.json").write_text(json.dumps({**manifest._asdict(), **changed}))
    with pytest.raises(ArtifactError, match="damaged manifest; delete it and run"):
        read_manifest(empty / "manifest.json")


def finish(root: Path, work: Path, files: Mapping[str, bytes]) -> Manifest:
    manifest = manifest_of(fill(work, files))
    commit(work, root, Place("nutrition/dataset"), manifest)
    return manifest


def test_a_commit_replaces_the_folder_whole(empty: Path) -> None:
    """Whatever lay in it, also what no manifest names: it may be an older build's, and nobody has
    proved it."""
    root = empty / "root"
    finish(root, empty / "one", {"a.jsonl": b"1", "old.jsonl": b"2"})
    fill(root / "nutrition" / "dataset", {"older/left.gguf": b"of a build before"})
    (root / "nutrition" / "dataset" / "manifest.json").unlink()
    manifest = finish(root, empty / "two", {"a.jsonl": b"3", "deep/new.jsonl": b"4"})
    folder = root / "nutrition" / "dataset"
    assert set(contents(folder)) == {"a.jsonl", "deep/new.jsonl", "manifest.json"}
    assert read_manifest(folder / "manifest.json") == manifest
    assert faults(folder, manifest) == {}


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


@given(
    st.dictionaries(
        st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none(), max_size=5
    )
)
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
