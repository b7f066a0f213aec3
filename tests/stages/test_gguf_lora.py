"""The adapter alone as a GGUF file: which weights it can hold, and what is said of those that it
cannot."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_builds import fresh, recipe, train_nothing
from safetensors.torch import load_file, save_file

from meetara_build.errors import NoEffectError, ProofError
from meetara_build.stages import gguf
from meetara_build.stages.gguf.convert import tell

UNTIED = {"tie_word_embeddings": False}
MLA = {
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}


@pytest.mark.parametrize(
    ("kind", "model", "targets"),
    [
        ("llama", UNTIED, ["q_proj", "embed_tokens"]),
        ("llama", UNTIED, ["down_proj", "embed_tokens", "lm_head"]),
        ("gpt2", UNTIED, ["c_fc", "wte", "lm_head"]),
        ("gpt2", {}, ["attn.c_proj"]),
    ],
    ids=[
        "embedding",
        "both ends",
        "turned weights and an embedding",
        "a turned weight as high as wide",
    ],
)
def test_a_lora_file_holds_each_weight_the_way_round_that_llama_cpp_wants(
    kind: str, model: dict[str, Any], targets: list[str], tmp_path: Path
) -> None:
    build = train_nothing(tmp_path / "build", kind, lora={"target_modules": targets}, **model)
    output = fresh(tmp_path / "out")
    gguf.run(recipe(files="both"), build.inputs(), output)
    report = json.loads((output / "proof.json").read_text())
    assert report["lora"]["worst"] < 0.005
    assert report["lora"]["weights"] == sum(
        1 if target in ("embed_tokens", "wte", "lm_head") else 2 for target in targets
    )


def test_a_weight_that_the_converter_splits_is_named_with_the_way_out(tmp_path: Path) -> None:
    """DeepSeek's kv_b_proj, of which llama.cpp makes two."""
    build = train_nothing(
        tmp_path / "build", "deepseek_v2", lora={"target_modules": ["q_b_proj", "kv_b_proj"]}, **MLA
    )
    with pytest.raises(ProofError) as fault:
        gguf.run(recipe(files="both"), build.inputs(), fresh(tmp_path / "out"))
    said = str(fault.value)
    assert (
        "splits or rewrites model.layers.0.self_attn.kv_b_proj.weight, which it cannot do to an adapter of it"
        in said
    )
    assert said.endswith(
        "set gguf.files to merged (the merged model is not affected), or leave kv_b_proj out of lora.targets"
    )


def test_an_adapter_alone_is_proved_on_its_base_s_file(tmp_path: Path) -> None:
    build, output = train_nothing(tmp_path / "build"), fresh(tmp_path / "out")
    given = {name: path for name, path in build.inputs().items() if name != "merged"}
    metrics = gguf.run(recipe(files="lora"), given, output)
    assert {path.name for path in output.iterdir()} == {"nutrition-lora.gguf", "proof.json"}
    report = json.loads((output / "proof.json").read_text())
    assert report["lora"]["worst"] < 0.005
    assert report["tokens"]["texts"] > 0
    assert metrics["bytes"] == {}
    assert metrics["lora_bytes"] == (output / "nutrition-lora.gguf").stat().st_size

    both = fresh(tmp_path / "both")
    gguf.run(recipe(files="both"), build.inputs(), both)
    one, other = (folder / "nutrition-lora.gguf" for folder in (output, both))
    assert one.read_bytes() == other.read_bytes()


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    build = train_nothing(tmp_path / "build")
    weights = load_file(build.adapter / "adapter_model.safetensors")
    zero = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    given = {name: path for name, path in build.inputs().items() if name != "merged"}
    save_file(zero, build.adapter / "adapter_model.safetensors")
    with pytest.raises(NoEffectError, match="answers the same with the adapter as without"):
        gguf.run(recipe(files="lora"), given, fresh(tmp_path / "out"))


def fail_without_a_word() -> None:
    raise AssertionError


def test_an_exception_without_a_word_is_told_by_its_kind_and_place() -> None:
    with pytest.raises(AssertionError) as fault:
        fail_without_a_word()
    place = r"in fail_without_a_word \(test_gguf_lora.py, line \d+: raise AssertionError\)"
    assert re.fullmatch(f"AssertionError without a word, {place}", tell(fault.value))
    assert tell(ValueError("two\nlines")) == "ValueError: two lines"
