"""Tokens beyond the model's rows: left out where no text needs them, refused where one does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_builds import fresh, recipe
from small_models import make_model, train_tokenizer
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from meetara_build.errors import ConfigError
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import base, gguf
from meetara_build.stages.recipes.base import BaseRecipe
from meetara_build.training.chat import encode

IMAGE = "<image_soft_token>"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    train_tokenizer(folder, vocabulary=400)
    make_model(folder, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    return folder


def add(folder: Path, token: str, *, special: bool = True, **roles: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(
        [AddedToken(token, special=special, normalized=False)], special_tokens=special
    )
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **roles}))


def take(folder: Path) -> Path:
    output = fresh(folder.parent / "taken")
    base.run(BaseRecipe(name="mine"), {"folder": folder}, output)
    return output


def test_a_special_token_beyond_the_rows_is_left_out_and_its_name_is_a_text_like_any_other(
    origin: Path,
) -> None:
    """Gemma 3 1B's, which stands for an image that the model cannot see."""
    add(origin, IMAGE, image_token=IMAGE)
    rows = AutoModelForCausalLM.from_pretrained(origin).config.vocab_size
    assert len(AutoTokenizer.from_pretrained(origin)) == rows + 1
    taken = take(origin)
    tokenizer = AutoTokenizer.from_pretrained(taken)
    assert len(tokenizer) == rows
    text = f"What does {IMAGE} mean?"
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "Nothing here."}]
    ids = encode(tokenizer, turns).ids
    assert max(ids) < rows
    assert text in tokenizer.decode(ids)
    logits = AutoModelForCausalLM.from_pretrained(taken)(input_ids=torch.tensor([ids])).logits
    assert logits.isfinite().all()
    output = fresh(origin.parent / "gguf")
    gguf.run(recipe(), {"base": taken}, output)
    with Model(output / "nutrition-F16.gguf", vocab_only=True) as model:
        assert (
            model.tokenize(text, add_special=False)
            == tokenizer(text, add_special_tokens=False)["input_ids"]
        )


@pytest.mark.parametrize(
    ("special", "roles"),
    [(False, {}), (True, {"eos_token": IMAGE})],
    ids=["texts hold it", "texts end with it"],
)
def test_a_token_that_texts_need_is_refused(
    special: bool, roles: dict[str, Any], origin: Path
) -> None:
    add(origin, IMAGE, special=special, **roles)
    with pytest.raises(ConfigError) as fault:
        take(origin)
    assert str(fault.value).startswith(
        f"base mine: its tokenizer knows 1 more tokens than the model ({IMAGE}); take both from"
    )


def test_a_token_that_the_chat_template_writes_is_refused(origin: Path) -> None:
    add(origin, IMAGE)
    template = origin / "chat_template.jinja"
    template.write_text(IMAGE + template.read_text())
    with pytest.raises(ConfigError, match="knows 1 more tokens than the model"):
        take(origin)


def test_a_tokenizer_that_fits_is_copied_byte_for_byte(origin: Path) -> None:
    taken = take(origin)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (taken / name).read_bytes() == (origin / name).read_bytes()
