"""A GGUF file's header, read without its weights."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.header import header, tensor_types, tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "one.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("A model")
    writer.add_add_space_prefix(False)
    writer.add_block_count(1)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), np.float16))
    writer.add_tensor("blk.0.attn_norm.weight", np.zeros(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_tensors_are_named_with_their_types_and_sizes(path: Path) -> None:
    assert tensor_types(path) == {"blk.0.attn_q.weight": "f16", "blk.0.attn_norm.weight": "f32"}
    assert tensors(path)["blk.0.attn_q.weight"].size == 64 * 64 * 2


def test_texts_and_truths_are_read_and_other_keys_left(path: Path) -> None:
    found = header(
        path,
        ("general.name", "tokenizer.ggml.add_space_prefix", "llama.block_count", "no.such.key"),
    )
    assert found.texts == {"general.name": "A model", "tokenizer.ggml.add_space_prefix": "false"}
    assert (found.main_type, found.quantized) == ("f16", None)
    assert found.size == path.stat().st_size


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"bad\.gguf: not a GGUF file, or one cut short"):
        header(tmp_path / "bad.gguf")
