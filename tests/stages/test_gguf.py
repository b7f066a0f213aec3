"""GGUF files are made, say what they are, and are refused where they are not the model."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_builds import Build, fresh, recipe, train_nothing
from small_models import make_model, train_tokenizer
from tokenizers import normalizers
from transformers import AutoModelForCausalLM

from meetara_build.errors import ArtifactError, ConfigError, ProofError
from meetara_build.llama_cpp.header import tensor_types
from meetara_build.llama_cpp.model import Model
from meetara_build.llama_cpp.quants import QUANTS
from meetara_build.stages import gguf
from meetara_build.stages.gguf import base_files, lora, proof
from meetara_build.stages.gguf.loading import load_tokenizer
from meetara_build.stages.gguf.quantize import NEEDS_IMATRIX


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def made(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("gguf")
    wanted = recipe(quants=["Q8_0", "Q4_K_M"], imatrix=True, files="both")
    gguf.run(wanted, build.inputs(imatrix=build.importance()), output)
    return output


def test_one_file_a_type_and_the_adapter_and_nothing_else_remains(made: Path) -> None:
    files = {path.name for path in made.iterdir()}
    variants = {f"nutrition-{part}.gguf" for part in ("F16", "Q8_0", "Q4_K_M", "lora")}
    assert files == {*variants, "proof.json"}


def test_files_say_what_they_are_without_times_or_paths(made: Path, build: Build) -> None:
    with Model(made / "nutrition-Q4_K_M.gguf", vocab_only=True) as model:
        metadata = model.metadata()
    assert metadata["general.name"] == metadata["meetara.domain"] == "nutrition"
    assert metadata["meetara.base"] == metadata["general.base_model.0.name"] == "tiny"
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["meetara.recipe"] == "0123456789abcdef"
    assert "<|im_start|>" in metadata["tokenizer.chat_template"]
    assert str(build.base.parent) not in str(metadata)


def test_the_proof_tells_what_was_compared(made: Path) -> None:
    report = json.loads((made / "proof.json").read_text())
    assert report["tokens"]["proved with"] == "tiny-F16.gguf"
    assert 10 < report["tokens"]["texts"] < 40
    assert report["conversations"] == 2
    assert 0 < report["lora"]["worst"] < 0.02
    assert report["lora"]["positions"] == 96
    assert report["lora"]["weights"] == 14
    assert report["imatrix"] == {"tensors": 14}
    assert report["files"]["Q4_K_M"]["types"].keys() == {"f32", "q4_K", "q6_K"}


def test_the_same_inputs_give_the_same_bytes(made: Path, build: Build, tmp_path: Path) -> None:
    wanted = recipe(quants=["Q8_0", "Q4_K_M"], imatrix=True, files="both")
    gguf.run(wanted, build.inputs(imatrix=build.importance()), tmp_path)
    for path in made.glob("*.gguf"):
        assert _digest(tmp_path / path.name) == _digest(path), path.name


def test_a_forked_job_makes_the_same_bytes(made: Path, build: Build, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            gguf.run(recipe(), build.inputs(), tmp_path)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert _digest(tmp_path / "nutrition-F16.gguf") == _digest(made / "nutrition-F16.gguf")


def test_a_base_alone_becomes_a_gguf_file_too(build: Build, tmp_path: Path) -> None:
    metrics = gguf.run(recipe(name="tiny", domain=None), {"base": build.base}, tmp_path)
    assert metrics["bytes"] == {"F16": (tmp_path / "tiny-F16.gguf").stat().st_size}
    assert 0 < metrics["logits_distance"] < 0.02
    report = json.loads((tmp_path / "proof.json").read_text())
    assert report["tokens"]["texts"] > 300
    assert report["tokens"]["cut"] == "gpt-2"
    assert report["conversations"] == 16


def test_a_file_whose_keys_are_not_the_base_s_is_refused(build: Build, tmp_path: Path) -> None:
    other = train_nothing(tmp_path / "other", cut="qwen2")
    inputs = {**build.inputs(), "base_gguf": other.inputs()["base_gguf"]}
    with pytest.raises(
        ProofError,
        match=r"nutrition-F16.gguf: .*tokenizer.ggml.merges, .* differ from those of the base's own file",
    ):
        gguf.run(recipe(), inputs, fresh(tmp_path / "out"))


def test_the_domain_s_own_texts_are_compared_on_the_base_s_vocabulary(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a text that the base's proofs do not have a like of."""
    cases = proof.own_cases

    def one_wrong(*given: Any) -> list[proof.Case]:
        first, *others = cases(*given)
        return [replace(first, ids=[*first.ids, 7]), *others]

    monkeypatch.setattr(proof, "own_cases", one_wrong)
    with pytest.raises(ProofError, match=r"by transformers and .* by llama.cpp"):
        gguf.run(recipe(), build.inputs(), fresh(tmp_path / "out"))


@pytest.mark.parametrize(
    "settings",
    [{"use_rslora": True}, {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 3}}],
    ids=["rslora", "patterns"],
)
def test_scales_that_llama_cpp_does_not_know_go_into_the_matrices(
    settings: dict[str, object], tmp_path: Path
) -> None:
    build = train_nothing(tmp_path / "build", lora=settings)
    gguf.run(recipe(files="both"), build.inputs(), fresh(tmp_path / "out"))  # proves its logits
    assert (tmp_path / "out" / "nutrition-lora.gguf").exists()


def test_a_lora_file_that_is_not_the_adapter_is_refused(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times its weight."""
    monkeypatch.setattr(lora, "_alpha", lambda _: 64.0)
    monkeypatch.setattr(lora, "_correction", lambda *_: 1.0)
    with pytest.raises(
        ProofError,
        match=r"nutrition-lora.gguf: logits differ from those of base \+ adapter .* more than 0.02",
    ):
        gguf.run(recipe(files="both"), build.inputs(), fresh(tmp_path / "out"))


def test_dora_is_refused_as_a_lora_file(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"use_dora": true}')
    with pytest.raises(ConfigError, match=r"DoRA.*set gguf.files to merged"):
        lora.check_expressible(tmp_path)


def test_rows_that_fit_no_block_of_256_are_told(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, hidden_size=192, intermediate_size=512)
    output = fresh(tmp_path / "out")
    gguf.run(recipe(quants=["Q4_K_M"]), {"base": tmp_path}, output)
    report = json.loads((output / "proof.json").read_text())["files"]["Q4_K_M"]
    assert "blk.0.attn_q.weight: 192 columns, q4_K -> q5_0" in report["fallbacks"]
    assert report["types"]["q5_0"] > 0


def test_every_known_type_can_be_made(build: Build, tmp_path: Path) -> None:
    quick = [quant for quant in QUANTS if not quant.startswith(("IQ1", "IQ2", "IQ3"))]
    wanted = recipe(quants=quick, imatrix=True)
    sizes = gguf.run(wanted, build.inputs(["BF16", "F32"], imatrix=build.importance()), tmp_path)[
        "bytes"
    ]
    assert set(sizes) == {"F16", *quick}
    assert sizes["Q2_K"] < sizes["Q4_K_M"] < sizes["Q8_0"] < sizes["F16"] < sizes["F32"]
    assert set(tensor_types(tmp_path / "nutrition-BF16.gguf").values()) == {"bf16", "f32"}


def test_an_unknown_type_is_refused_with_the_nearest_known(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown quant type 'Q8-0'; did you mean 'Q8_0'"):
        gguf.run(recipe(quants=["Q8-0"]), build.inputs(), tmp_path)


def test_types_that_need_an_imatrix_say_so(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"IQ2_XS.*imatrix.enabled"):
        gguf.run(recipe(quants=["IQ2_XS"]), build.inputs(), tmp_path)
    assert set(QUANTS) > NEEDS_IMATRIX


def test_a_file_that_is_not_the_model_is_refused(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a wrong conversion: torch gets another model than the converter."""
    other = shutil.copytree(build.merged, tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    model.save_pretrained(other)
    monkeypatch.setattr(
        base_files, "load_model", lambda *_: AutoModelForCausalLM.from_pretrained(other).eval()
    )
    with pytest.raises(ProofError, match=re.escape("nutrition-F16.gguf: logits differ")):
        gguf.run(recipe(), {"base": build.merged}, fresh(tmp_path / "out"))


def test_a_tokenizer_that_llama_cpp_has_no_equal_for_is_refused_with_the_first_difference(
    tmp_path: Path,
) -> None:
    train_tokenizer(tmp_path, "gpt2", normaliser=normalizers.Lowercase())
    make_model(tmp_path)
    with pytest.raises(
        ProofError, match=r"'Hello, world.*' is \[.*\] by transformers and \[.*\] by llama.cpp"
    ):
        gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))


def test_a_tokenizer_larger_than_its_model_is_refused(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, vocab_size=300)
    with pytest.raises(ProofError, match=r"the tokenizer has \d+ tokens, but the model only 300"):
        gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))


def test_tokens_written_alike_are_refused_before_llama_cpp_aborts(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, vocab_size=702)
    tokenizer = load_tokenizer(tmp_path)
    # The converter writes an unused id as [PAD700], which this user has called a token of their
    # own.
    tokenizer.add_tokens(["[PAD700]"])
    (tmp_path / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str())
    with pytest.raises(ProofError, match=r"both written '\[PAD700\]'"):
        gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))


def test_a_folder_without_tokenizer_is_refused(build: Build, tmp_path: Path) -> None:
    folder = shutil.copytree(build.base, tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(
        ArtifactError, match=r"bare: the tokenizer cannot be read .*Put tokenizer.json"
    ):
        gguf.run(recipe(), {"base": folder}, fresh(tmp_path / "out"))


def test_an_architecture_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, "opt", ffn_dim=512, word_embed_proj_dim=256)
    with pytest.raises(ConfigError, match=r"OPTForCausalLM.*Choose a base"):
        gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))


def test_distances_ignore_a_constant_and_the_scale() -> None:
    theirs = torch.randn(3, 50).numpy()
    assert proof.distances(theirs, theirs + 7).max() < 1e-5
    assert proof.distances(theirs * 100, theirs * 101) == pytest.approx([0.01] * 3, rel=1e-3)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
