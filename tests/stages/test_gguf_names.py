"""What llama.cpp goes by besides the weights: the token that ends a turn, and words in a model's
name."""

import json
from pathlib import Path

import pytest
from gguf_builds import fresh, recipe
from small_models import make_model, train_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer

from meetara_build.errors import ProofError
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import gguf
from meetara_build.stages.gguf import proof
from meetara_build.training.chat import turn_end


def base_ending_turns_with(token: str, folder: Path) -> Path:
    """A random base whose template ends turns with a token of its own, which is not the one that
    ends a text."""
    train_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True, normalized=False)]}
    )
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", token)
    tokenizer.save_pretrained(folder)
    make_model(folder)
    return folder


@pytest.mark.parametrize("token", ["<|im_end|>", "<|done|>", "[/TURN]"])
def test_generation_ends_at_the_token_that_ends_a_turn_whatever_it_is_called(
    token: str, tmp_path: Path
) -> None:
    base = base_ending_turns_with(token, tmp_path / "base")
    end = turn_end(AutoTokenizer.from_pretrained(base))
    assert AutoTokenizer.from_pretrained(base).convert_ids_to_tokens(end) == token
    gguf.run(recipe(quants=["Q8_0"]), {"base": base}, fresh(tmp_path / "gguf"))
    for path in (tmp_path / "gguf").glob("*.gguf"):
        with Model(path, vocab_only=True) as model:
            assert model.is_end(end), path.name
            assert model.metadata()["tokenizer.ggml.eot_token_id"] == str(end)


def test_a_file_that_goes_on_after_a_turn_is_refused(tmp_path: Path) -> None:
    base = base_ending_turns_with("<|done|>", tmp_path / "base")
    gguf.run(recipe(), {"base": base}, fresh(tmp_path / "gguf"))
    word = AutoTokenizer.from_pretrained(base)("a")["input_ids"][0]
    with Model(tmp_path / "gguf" / "nutrition-F16.gguf", vocab_only=True) as model:
        proof.prove_turn_end(model, None)
        with pytest.raises(
            ProofError, match=r"ends an assistant's turn .*llama\.cpp does not stop at it"
        ):
            proof.prove_turn_end(model, word)


def test_a_template_that_ends_turns_with_no_token_names_none(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert turn_end(tokenizer) is None


@pytest.mark.parametrize("name", ["phi3_notes", "my_phi3", "phi3", "Phi-3 notes"])
def test_a_name_switches_nothing_in_llama_cpp(name: str, tmp_path: Path) -> None:
    train_tokenizer(tmp_path / "base")
    make_model(tmp_path / "base")
    gguf.run(recipe(name=name, domain=name), {"base": tmp_path / "base"}, fresh(tmp_path / "gguf"))
    with Model(tmp_path / "gguf" / f"{name}-F16.gguf", vocab_only=True) as model:
        metadata = model.metadata()
    assert metadata["meetara.domain"] == name
    assert "phi 3" in metadata["general.name"].lower()
    assert json.loads((tmp_path / "gguf" / "proof.json").read_text())["tokens"]["texts"] > 300
