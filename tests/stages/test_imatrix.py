"""A base's importance matrix: the mean square of what its layers are given, in a file that
llama.cpp's own tools read."""

import json
from pathlib import Path

import gguf as gguf_library
import numpy as np
import pytest
import torch
from gguf_builds import Build, fresh, recipe, train_nothing

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.importance import FILE, read_imatrix, write_imatrix
from meetara_build.stages import gguf, imatrix
from meetara_build.stages.recipes.imatrix import ImatrixRecipe
from meetara_build.training.model import load_model


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def folder(build: Build) -> Path:
    return build.importance()


def test_sums_are_those_of_each_layer_s_input(build: Build) -> None:
    model = load_model(build.base, torch.float32)
    names = {"model.layers.0.self_attn.q_proj": "blk.0.attn_q.weight"}
    found, tokens = imatrix.measure(model, [[5, 6, 7, 8], [9, 10]], names, 100)
    assert tokens == 6
    with torch.inference_mode():
        hidden = model.model.embed_tokens(torch.tensor([5, 6, 7, 8, 9, 10]))
        wanted = model.model.layers[0].input_layernorm(hidden).square().sum(0)
    torch.testing.assert_close(torch.from_numpy(found["blk.0.attn_q.weight"]), wanted)


def test_every_linear_layer_has_its_row_and_no_other(folder: Path) -> None:
    found = read_imatrix(folder / FILE)
    kinds = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    assert set(found) == {f"blk.{layer}.{kind}.weight" for layer in range(2) for kind in kinds}
    assert found["blk.0.ffn_down.weight"].shape == (512,)
    assert all((means > 0).all() for means in found.values())


def test_the_file_is_as_llama_cpp_writes_it(folder: Path) -> None:
    reader = gguf_library.GGUFReader(folder / FILE)
    assert reader.get_field("general.type").contents() == "imatrix"
    assert reader.get_field("imatrix.chunk_size").contents() == 512
    assert reader.get_field("imatrix.chunk_count").contents() == 2
    sums, counts = (
        next(one for one in reader.tensors if one.name == f"blk.0.attn_q.weight.{part}")
        for part in ("in_sum2", "counts")
    )
    assert (sums.shape.tolist(), counts.shape.tolist()) == ([256, 1], [1, 1])
    assert counts.data.reshape(-1)[0] == 1024
    means = read_imatrix(folder / FILE)["blk.0.attn_q.weight"]
    assert means == pytest.approx(sums.data.reshape(-1) / 1024)


def test_no_more_tokens_are_read_than_asked_for_and_the_bytes_are_the_same(
    build: Build, tmp_path: Path
) -> None:
    inputs = {"base": build.base, "sample": build.dataset / "train.jsonl"}
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    asked = ImatrixRecipe(base="tiny", tokens=300, threads=1)
    assert imatrix.run(asked, inputs, one) == {"tokens": 300, "tensors": 14}
    imatrix.run(asked, inputs, two)
    assert (one / FILE).read_bytes() == (two / FILE).read_bytes()


def test_a_file_is_quantized_by_it(build: Build, folder: Path, tmp_path: Path) -> None:
    plain, weighed = fresh(tmp_path / "plain"), fresh(tmp_path / "weighed")
    gguf.run(recipe(quants=["Q4_K_M"]), build.inputs(), plain)
    gguf.run(recipe(quants=["Q4_K_M"], imatrix=True), build.inputs(imatrix=folder), weighed)
    name = "nutrition-Q4_K_M.gguf"
    assert (plain / name).stat().st_size == (weighed / name).stat().st_size
    assert (plain / name).read_bytes() != (weighed / name).read_bytes()
    assert json.loads((weighed / "proof.json").read_text())["imatrix"] == {"tensors": 14}


def test_what_is_no_matrix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    write_imatrix(path, {"a.weight": np.ones(64, np.float32)}, 4, 512)
    assert read_imatrix(path)["a.weight"] == pytest.approx(np.full(64, 0.25))
    for content in (b"no such file at all", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"imatrix\.gguf: not an importance matrix"):
            read_imatrix(path)
