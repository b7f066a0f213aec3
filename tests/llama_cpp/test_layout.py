"""A GGUF file byte by byte, and one like another but for some keys and tensors."""

import os
import stat
from pathlib import Path

import gguf
import numpy as np
import pytest

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.header import header
from meetara_build.llama_cpp.layout import list_differences, read_layout, write_changed

Q, NORM = "blk.0.attn_q.weight", "blk.0.attn_norm.weight"


def write(file: Path, name: str = "A model", **lists: list[str]) -> Path:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(name)
    writer.add_add_space_prefix(False)
    writer.add_block_count(1)
    writer.add_token_list(lists.get("tokens", ["a", "Ġb", "🙂", ""]))
    writer.add_token_types([1, 1, 1, 1])
    weights = np.arange(64 * 32, dtype=np.float16).reshape(64, 32)
    writer.add_tensor(Q, weights)
    writer.add_tensor(NORM, np.ones(33, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "one.gguf")


def test_tensors_are_where_ggml_says(path: Path) -> None:
    layout = read_layout(path)
    assert {name: place.size for name, place in layout.tensors.items()} == {
        name: tensor.size for name, tensor in header(path).tensors.items()
    }
    place = layout.tensors[Q]
    assert (place.kind.name, place.shape) == ("F16", (64, 32))
    found = np.fromfile(path, np.float16, 64 * 32, offset=place.start)
    assert (found == np.arange(64 * 32)).all()
    assert layout.text("general.name") == "A model"
    assert layout.text("llama.block_count") == layout.text("no.such.key") == ""


def test_a_file_written_anew_unchanged_is_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_changed(path, tmp_path / "two.gguf", {}, [])
    assert (tmp_path / "two.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["B", "a much longer name than the one before, with an é"])
def test_what_is_changed_is_changed_and_nothing_else(name: str, path: Path, tmp_path: Path) -> None:
    """As the library itself would have written it."""
    other = tmp_path / "two.gguf"
    write_changed(path, other, {"general.name": name}, [(NORM, np.full(33, 2, np.float32))])
    wanted = bytearray(write(tmp_path / "wanted.gguf", name).read_bytes())
    place = read_layout(tmp_path / "wanted.gguf").tensors[NORM]
    wanted[place.start : place.start + place.size] = np.full(33, 2, np.float32).tobytes()
    assert other.read_bytes() == bytes(wanted)
    assert list_differences(read_layout(path), read_layout(other), ()) == ["general.name"]
    assert list_differences(read_layout(path), read_layout(other), ("general.name",)) == []


def test_the_source_is_not_written_into(path: Path, tmp_path: Path) -> None:
    """It shares its bytes with the store."""
    os.link(path, tmp_path / "blob")
    path.chmod(0o444)
    before = path.read_bytes()
    write_changed(path, tmp_path / "two.gguf", {}, [(NORM, np.zeros(33, np.float32))])
    assert (tmp_path / "blob").read_bytes() == before
    assert os.stat(tmp_path / "two.gguf").st_mode & stat.S_IWUSR


def test_another_token_is_a_difference(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "two.gguf", tokens=["a", "Ġb", "🙂", "c"])
    found = list_differences(read_layout(path), read_layout(other), ())
    assert found == ["tokenizer.ggml.tokens"]


@pytest.mark.parametrize("size", [0, 3, 20, 150, -60])
def test_what_is_cut_short_is_refused(size: int, path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"bad\.gguf: not a GGUF file, or one cut short"):
        read_layout(tmp_path / "bad.gguf")


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model at all, whatever its name says")
    with pytest.raises(ArtifactError, match=r"bad\.gguf: not a GGUF file"):
        read_layout(tmp_path / "bad.gguf")
