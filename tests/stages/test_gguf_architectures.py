"""The gates hold for architectures and tokenizers that no hash table knows."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_builds import fresh, recipe, train_nothing
from small_models import QWEN2, make_model, train_sentencepiece_like, train_tokenizer
from tokenizers import normalizers

from meetara_build.errors import ProofError
from meetara_build.stages import gguf

GEMMA = {"head_dim": 64, "query_pre_attn_scalar": 64}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "phi3": {},
    "gemma2": GEMMA,
    "mistral": {},
    "qwen3": {"head_dim": 64},
    "olmo2": {},
    "stablelm": {},
    "granite": {},
    "smollm3": {},
    "gpt2": {},
    "mixtral": {},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tokens_conversations_logits_and_adapter_agree(kind: str, tmp_path: Path) -> None:
    cut = "qwen2" if kind.startswith("qwen") else "gpt2"
    targets = {"target_modules": ["q_proj", "v_proj"]} if kind == "mixtral" else {}
    build = train_nothing(tmp_path / "build", kind, cut, targets, **ARCHITECTURES[kind])
    output = fresh(tmp_path / "out")
    wanted = recipe(quants=["Q4_K_M"], files="both", imatrix=True)
    merged = fresh(tmp_path / "merged")
    inputs = build.inputs(merged=merged, imatrix=build.importance(256))
    figures = build.merge(inputs, merged)
    assert figures["logits_distance"] < 0.005
    assert "converted_whole" not in figures
    gguf.run(wanted, inputs, output)
    report = json.loads((output / "proof.json").read_text())
    assert report["lora"]["worst"] < 0.005
    assert report["imatrix"]["tensors"] >= 8


@pytest.mark.parametrize(
    ("cut", "options", "name"),
    [
        ("gpt2", {}, "gpt-2"),
        ("smollm", {}, "smollm"),
        ("llama3", {}, "smaug-bpe"),
        ("llama3", {"ignore_merges": True}, "llama-bpe"),
        ("llama3", {"bos": True}, "smaug-bpe"),
        ("qwen2", {"normaliser": normalizers.NFC()}, "qwen2"),
    ],
    ids=["gpt2", "smollm", "llama3 trained", "llama3 published", "adds bos", "qwen2 normalised"],
)
def test_byte_level_tokenizers_find_their_cut(
    cut: str, options: dict[str, Any], name: str, tmp_path: Path
) -> None:
    train_tokenizer(tmp_path, cut, **options)
    make_model(tmp_path)
    output = fresh(tmp_path / "out")
    gguf.run(recipe(), {"base": tmp_path}, output)
    assert json.loads((output / "proof.json").read_text())["tokens"]["cut"] == name


def test_a_cut_that_no_table_names_is_found_by_trying(tmp_path: Path) -> None:
    """Seed-Coder's: as Qwen 2's, but line ends are never part of punctuation. The guess, gpt-2,
    does not fit."""
    train_tokenizer(tmp_path, QWEN2.replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}]+"))
    make_model(tmp_path)
    output = fresh(tmp_path / "out")
    gguf.run(recipe(), {"base": tmp_path}, output)
    assert json.loads((output / "proof.json").read_text())["tokens"]["cut"] not in (None, "gpt-2")


@pytest.mark.parametrize(("kind", "options"), [("llama", {}), ("mistral", {}), ("gemma2", GEMMA)])
def test_tokenizers_with_byte_fallback_need_no_tokenizer_model(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    train_sentencepiece_like(tmp_path)
    make_model(tmp_path, kind, **options)
    output = fresh(tmp_path / "out")
    gguf.run(recipe(), {"base": tmp_path}, output)
    assert json.loads((output / "proof.json").read_text())["tokens"]["kind"] == "SentencePiece BPE"


def test_special_tokens_that_swallow_spaces_are_found_to_need_phi_3_s_name(tmp_path: Path) -> None:
    train_sentencepiece_like(tmp_path)
    file = tmp_path / "tokenizer.json"
    written = json.loads(file.read_text())
    for token in written["added_tokens"]:
        token["rstrip"] = token["content"] in ("<|im_start|>", "<|im_end|>", "</s>")
    file.write_text(json.dumps(written))
    make_model(tmp_path, "phi3")
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))  # proves its tokens and logits
    assert [*(tmp_path / "out").glob("*.gguf")]


def test_a_vocabulary_padded_beyond_its_tokens_is_kept(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, vocab_size=768)
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))  # proves its tokens and logits
    assert [*(tmp_path / "out").glob("*.gguf")]


def test_a_window_that_llama_cpp_does_not_apply_is_refused(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    make_model(tmp_path, "mistral", sliding_window=32)
    with pytest.raises(ProofError, match="sliding_window of 32"):
        gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))
