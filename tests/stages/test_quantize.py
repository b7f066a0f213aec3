"""A base's own file in smaller types, for adapters to be used on."""

from pathlib import Path
from typing import Any

import pytest
from gguf_builds import Build, fresh, train_nothing

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.header import tensor_types
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import quantize
from meetara_build.stages.recipes.quantize import QuantizeRecipe


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def base_gguf(build: Build) -> Path:
    return build.make_base_gguf()


def recipe(**changes: Any) -> QuantizeRecipe:
    given = {"base": "tiny", "quants": ["Q8_0"], "imatrix": False, "tensor_types": {}, "threads": 1}
    return QuantizeRecipe.model_validate({**given, **changes})


def test_each_type_is_a_smaller_file_with_the_base_s_keys(base_gguf: Path, tmp_path: Path) -> None:
    metrics = quantize.run(recipe(quants=["Q8_0", "Q4_K_M"]), {"base_gguf": base_gguf}, tmp_path)
    fine, coarse = (tmp_path / f"tiny-{quant}.gguf" for quant in ("Q8_0", "Q4_K_M"))
    whole = base_gguf / "tiny-F16.gguf"
    assert coarse.stat().st_size < fine.stat().st_size < whole.stat().st_size
    assert metrics["bytes"] == {"Q8_0": fine.stat().st_size, "Q4_K_M": coarse.stat().st_size}
    with Model(whole, vocab_only=True) as one, Model(coarse, vocab_only=True) as other:
        mine, its = one.metadata(), other.metadata()
    assert mine.pop("general.file_type") != its.pop("general.file_type")
    assert {key: value for key, value in its.items() if key in mine} == mine


def test_the_importance_matrix_decides_what_is_kept(
    build: Build, base_gguf: Path, tmp_path: Path
) -> None:
    plain, weighed = fresh(tmp_path / "plain"), fresh(tmp_path / "weighed")
    quantize.run(recipe(quants=["Q4_K_M"]), {"base_gguf": base_gguf}, plain)
    given = {"base_gguf": base_gguf, "imatrix": build.importance()}
    quantize.run(recipe(quants=["Q4_K_M"], imatrix=True), given, weighed)
    one, other = ((folder / "tiny-Q4_K_M.gguf").read_bytes() for folder in (plain, weighed))
    assert one != other


def test_single_tensors_may_have_a_type_of_their_own(base_gguf: Path, tmp_path: Path) -> None:
    quantize.run(recipe(tensor_types={"attn_q": "F16"}), {"base_gguf": base_gguf}, tmp_path)
    found = tensor_types(tmp_path / "tiny-Q8_0.gguf")
    assert found["blk.0.attn_q.weight"] == "f16"
    assert found["blk.0.attn_k.weight"] == "q8_0"


def test_a_type_that_cannot_be_made_is_refused_with_the_key(
    base_gguf: Path, tmp_path: Path
) -> None:
    given = {"base_gguf": base_gguf}
    with pytest.raises(
        ConfigError, match=r"^base\.quants of tiny: IQ2_XS .*gguf\.imatrix\.enabled"
    ):
        quantize.run(recipe(quants=["IQ2_XS"]), given, tmp_path)
    with pytest.raises(ConfigError, match=r"gguf\.tensor_types: 'no_such' matches no tensor"):
        quantize.run(recipe(tensor_types={"no_such": "F16"}), given, tmp_path)
