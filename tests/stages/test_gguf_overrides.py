"""Types of single tensors: what a pattern reaches, what it leaves alone, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gguf_builds import Build, fresh, recipe, train_nothing
from small_models import make_model, train_tokenizer

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.header import tensor_types, tensors
from meetara_build.stages import gguf
from meetara_build.stages.gguf.overrides import group


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def plain(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("plain")
    gguf.run(recipe(quants=["Q4_K_M", "BF16"]), {"base": build.merged}, output)
    return output


def make(build: Build, output: Path, types: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """A run of the stage with types of their own for some tensors."""
    wanted = recipe(**{"quants": ["Q4_K_M"], **changes}, tensor_types=dict(types))
    inputs = {"base": build.merged, "dataset": build.dataset}
    if wanted.imatrix:
        inputs["imatrix"] = build.importance(512)
    return gguf.run(wanted, inputs, fresh(output))


def test_every_tensor_that_a_pattern_names_gets_its_type(build: Build, tmp_path: Path) -> None:
    make(build, tmp_path, {r"\battn_v\b": "Q8_0", "token_embd": "Q5_K"})
    types = tensor_types(tmp_path / "nutrition-Q4_K_M.gguf")
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in range(3)} == {"q8_0"}
    assert types["token_embd.weight"] == "q5_K"


def test_the_other_tensors_keep_the_types_they_have_without(
    build: Build, plain: Path, tmp_path: Path
) -> None:
    """llama.cpp alone gives more bits to other layers where the first has a type of its own."""
    make(build, tmp_path, {r"blk\.0\.ffn_down": "Q5_K"})
    with_own, without = (
        tensor_types(folder / "nutrition-Q4_K_M.gguf") for folder in (tmp_path, plain)
    )
    assert without["blk.2.ffn_down.weight"] == "q6_K"
    assert with_own == {**without, "blk.0.ffn_down.weight": "q5_K"}


def test_files_that_are_not_quantized_stay_as_they_are(
    build: Build, plain: Path, tmp_path: Path
) -> None:
    make(build, tmp_path, {"ffn_down": "Q8_0"}, quants=["Q4_K_M", "BF16"])
    for quant in ("F16", "BF16"):
        name = f"nutrition-{quant}.gguf"
        assert (tmp_path / name).read_bytes() == (plain / name).read_bytes()


def test_norms_are_no_part_of_a_pattern(build: Build, tmp_path: Path) -> None:
    make(build, tmp_path, {"attn|ffn": "Q8_0"})
    types = tensor_types(tmp_path / "nutrition-Q4_K_M.gguf")
    assert types["blk.0.attn_norm.weight"] == "f32"
    assert types["blk.0.attn_q.weight"] == types["blk.1.ffn_up.weight"] == "q8_0"


def test_the_order_of_the_patterns_does_not_matter(build: Build, tmp_path: Path) -> None:
    patterns = {"attn_q": "Q8_0", "ffn_up": "Q6_K"}
    make(build, tmp_path / "one", patterns)
    make(build, tmp_path / "two", dict(reversed(patterns.items())))
    one, two = ((tmp_path / name / "nutrition-Q4_K_M.gguf").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("types", "said"),
    [
        (
            {"attn_vv": "Q6_K"},
            r"'attn_vv' matches no tensor of nutrition-F16.gguf. Name some of .*attn_v",
        ),
        ({"attn_norm": "Q6_K"}, r"'attn_norm' matches no tensor"),
        (
            {"attn_v": "Q6_K", "attn": "Q5_K"},
            r"blk.0.attn_v.weight is Q6_K by 'attn_v' and Q5_K by 'attn'. Narrow one",
        ),
        (
            {"token_embd": "IQ2_XS"},
            r"token_embd.weight cannot be IQ2_XS, which needs importance data.*Choose a type",
        ),
    ],
    ids=["no tensor", "a norm", "two types", "no importance data"],
)
def test_what_cannot_be_is_refused(
    build: Build, tmp_path: Path, types: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make(build, tmp_path, types, imatrix=True)
    assert not (tmp_path / "nutrition-Q4_K_M.gguf").exists()


def test_a_type_that_does_not_fit_the_rows_is_refused_by_the_pattern(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, hidden_size=192, intermediate_size=512)
    wanted = recipe(quants=["Q8_0"], tensor_types={"ffn_down": "Q4_K", "attn_q": "Q6_K"})
    with pytest.raises(
        ConfigError,
        match=r"'attn_q' wants Q6_K for blk.0.attn_q.weight, whose rows of 192 do not fit",
    ):
        gguf.run(wanted, {"base": tmp_path}, fresh(tmp_path / "out"))


def test_types_that_need_importance_data_get_it(build: Build, tmp_path: Path) -> None:
    make(
        build,
        tmp_path,
        {"ffn_up": "IQ3_XXS"},
        quants=["Q8_0"],
        imatrix=True,
    )
    assert json.loads((tmp_path / "proof.json").read_text())["imatrix"]["tensors"] == 21
    assert tensor_types(tmp_path / "nutrition-Q8_0.gguf")["blk.0.ffn_up.weight"] == "iq3_xxs"


def test_the_metrics_tell_what_is_stored_how(build: Build, tmp_path: Path) -> None:
    metrics = make(build, tmp_path, {"attn_v": "Q8_0"})
    stored = metrics["tensors"]["Q4_K_M"]
    assert set(stored["attn_v"]) == {"q8_0"}
    assert set(stored["ffn_down"]) == {"q4_K", "q6_K"}
    assert set(metrics["tensors"]["F16"]["ffn_down"]) == {"f16"}
    path = tmp_path / "nutrition-Q4_K_M.gguf"
    assert sum(sum(kinds.values()) for kinds in stored.values()) == sum(
        one.size for one in tensors(path).values()
    )
    assert metrics["bytes"]["Q4_K_M"] == path.stat().st_size
    assert metrics["fallbacks"] == {}


def test_the_metrics_count_rows_that_fit_no_block(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, hidden_size=192, intermediate_size=512)
    wanted = recipe(quants=["Q4_K_M"], tensor_types={"attn_q": "Q5_0"})
    found = gguf.run(wanted, {"base": tmp_path}, fresh(tmp_path / "out"))["fallbacks"]["Q4_K_M"]
    assert found["attn_k"] == 2
    assert "attn_q" not in found
    assert "ffn_down" not in found


def test_a_group_is_a_tensor_s_name_without_its_layer() -> None:
    assert group("blk.12.attn_v.weight") == "attn_v"
    assert group("output.weight") == "output"
    assert group("blk.0.attn_q.bias") == "attn_q"
