"""The base: made here from the corpus, the same bytes each time, or taken whole from elsewhere and
refused where it cannot serve."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from projects import REPOSITORY
from safetensors.torch import load_file, save_file
from small_models import make_model, train_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from meetara_build.config.resolve import Configuration
from meetara_build.errors import ConfigError
from meetara_build.stages import base
from meetara_build.stages.base import embedded
from meetara_build.stages.recipes.base import BaseRecipe, ModelShape
from meetara_build.stages.types import Metrics
from meetara_build.training.chat import encode

CONF = REPOSITORY / "conf"
RECIPE: dict[str, Any] = {
    "name": "mini",
    "seed": 17,
    "chat_template": "chatml",
    "tokenizer": {"vocab_size": 600},
    "model": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "layers": 1,
        "heads": 4,
        "kv_heads": 2,
        "positions": 256,
    },
    "pretraining": {
        "epochs": 2,
        "batch_tokens": 256,
        "learning_rate": 3e-3,
        "warmup_share": 0.05,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
    },
    "threads": 1,
}


def run(recipe: Mapping[str, Any], *more: Any) -> Metrics:
    """The stage, of a recipe that is written as JSON."""
    return base.run(BaseRecipe.model_validate(recipe), *more)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for number, line in enumerate(
        (CONF / "domain" / "nutrition.jsonl").read_text(encoding="utf-8").splitlines()
    ):
        record = json.loads(line)
        turns = [
            {"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["response"]},
        ]
        lines.append(
            json.dumps(
                {"id": str(number), "domain": "nutrition", "messages": turns}, ensure_ascii=False
            )
        )
    (folder / "corpus.jsonl").write_text("\n".join(lines[:30]) + "\n", encoding="utf-8")
    return folder


def make(corpus: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    output = folder / "out"
    output.mkdir(parents=True)
    return run({**RECIPE, **changes}, {"corpus": corpus}, output)


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made")
    return folder / "out", make(corpus, folder)


# Made here


def test_the_base_made_here_is_a_folder_that_transformers_loads(
    made: tuple[Path, dict[str, Any]],
) -> None:
    folder, metrics = made
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer) == 600
    assert metrics["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert (
        sorted(
            path.suffix
            for path in folder.iterdir()
            if path.suffix in (".bin", ".pt", ".py", ".pkl")
        )
        == []
    )


def test_it_learnt_something_and_says_how_much(made: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = made
    assert metrics["records"] == 30
    assert metrics["tokens"] > 1000
    assert 0 < metrics["loss"] < 6.3, "below the entropy of 600 equally likely tokens, 6.4 nats"


def test_the_same_corpus_gives_the_same_bytes(
    made: tuple[Path, dict[str, Any]], corpus: Path, tmp_path: Path
) -> None:
    folder, metrics = made
    assert make(corpus, tmp_path) == metrics
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_another_seed_gives_another_model_and_the_same_tokenizer(
    made: tuple[Path, dict[str, Any]], corpus: Path, tmp_path: Path
) -> None:
    folder, _ = made
    make(corpus, tmp_path, seed=18)
    assert (folder / "tokenizer.json").read_bytes() == (
        tmp_path / "out" / "tokenizer.json"
    ).read_bytes()
    assert (folder / "model.safetensors").read_bytes() != (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


def test_metrics_name_no_time(made: tuple[Path, dict[str, Any]]) -> None:
    assert set(made[1]) == {"parameters", "records", "tokens", "loss"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return embedded.make_tokenizer(
        ["How do I read a food label?", "Look at the portion size first."] * 20, 600, 256
    )


@given(st.text(max_size=60))
def test_no_text_is_unknown_to_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Bytes are its alphabet, so any script and any emoji come back as they went in."""
    text = text.encode("utf-8", "ignore").decode()
    ids = tokenizer(text, add_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["El niño comió piñas", "नमस्ते दुनिया", "你好，世界", "🙂🚀 50 % — “so”", "  a\n\n\tb  "]
)
def test_scripts_and_spaces_come_back_as_they_were(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_speaks_chatml_with_one_token_for_each_marker(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
    ]
    written = tokenizer.apply_chat_template(turns, tokenize=False)
    assert (
        written
        == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    )
    asked = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<|im_start|>assistant\n")
    for marker in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(marker)["input_ids"]) == 1
    assert tokenizer.eos_token == "<|im_end|>"
    encoded = encode(tokenizer, turns)
    said = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert tokenizer.decode(said) == "A<|im_end|>\n"


def test_another_template_than_chatml_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="base mini: chat_template 'llama3': a base made here speaks chatml; say so",
    ):
        make(corpus, tmp_path, chat_template="llama3")


def test_the_shipped_base_has_at_most_four_million_parameters_in_widths_that_k_quants_fit() -> None:
    shape = Configuration(REPOSITORY).common("tiny").base
    assert shape.tokenizer and shape.model
    sizes = ModelShape.model_validate(shape.model.model_dump())
    tokenizer = embedded.make_tokenizer(["a word"], shape.tokenizer.vocab_size, sizes.positions)
    model = embedded.make_model(sizes, 17, shape.tokenizer.vocab_size, tokenizer)
    count = sum(weight.numel() for weight in model.parameters())
    assert count <= 4_000_000
    assert abs(count / shape.parameters - 1) < 0.05, "conf/base/tiny.yaml states about as many"
    assert all(weight.shape[-1] % 256 == 0 for weight in model.parameters() if weight.dim() == 2)


# Taken from elsewhere


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin") / "model"
    train_tokenizer(folder, vocabulary=400)
    make_model(folder, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    return folder


@pytest.fixture
def mine(origin: Path, tmp_path: Path) -> Path:
    """A model of the test's own to break."""
    return Path(shutil.copytree(origin, tmp_path / "mine"))


def take(folder: Path) -> tuple[Path, dict[str, Any]]:
    output = folder.parent / "taken"
    output.mkdir()
    return output, run({"name": "mine"}, {"folder": folder}, output)


def refused(folder: Path) -> str:
    with pytest.raises(ConfigError) as fault:
        take(folder)
    said = str(fault.value)
    assert said.startswith("base mine: ")
    assert "; " in said, "it ends with what to do"
    assert "\n" not in said
    return said


def test_a_folder_is_taken_whole_and_counted(mine: Path) -> None:
    output, metrics = take(mine)
    model = AutoModelForCausalLM.from_pretrained(mine)
    stored = load_file(mine / "model.safetensors")
    assert metrics == {
        "model_type": "llama",
        "vocabulary": model.config.vocab_size,
        "parameters": sum(t.numel() for t in stored.values()),
    }
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (mine / name).read_bytes()


def test_only_what_later_stages_need_is_taken(mine: Path) -> None:
    for name in ("pytorch_model.bin", "modeling_mine.py", "README.md", "optimizer.pt", "notes.txt"):
        (mine / name).write_text("x")
    (mine / "runs").mkdir()
    output, _ = take(mine)
    assert {path.name for path in output.iterdir()} <= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "no config.json; point folder: at a model in Hugging Face form"),
        ("model.safetensors", "no .safetensors file; convert the weights to safetensors"),
        (
            "tokenizer.json",
            "no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt); save the model's",
        ),
        (
            "chat_template.jinja",
            "its tokenizer has no chat template; use the instruct version, or put chat_template.jinja",
        ),
    ],
)
def test_a_missing_part_is_named(mine: Path, name: str, said: str) -> None:
    (mine / name).unlink()
    assert said in refused(mine)


def set_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def missing_shard(folder: Path) -> None:
    index = {
        "metadata": {},
        "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def too_many_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra_{number}>" for number in range(5)])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (damaged_weights, "model.safetensors is damaged"),
        (
            missing_shard,
            "model-00002-of-00002.safetensors is missing; copy or fetch the model again",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
            "model.safetensors.index.json is damaged",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "transformers cannot load it"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "transformers cannot load it"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("[]"),
            "transformers cannot load it",
        ),
        (
            lambda folder: set_json(folder / "config.json", model_type="unheard_of"),
            "use a base of a supported architecture",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{% for"),
            "its chat template cannot be used",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}"),
            "leaves out the assistant's answer",
        ),
        (too_many_tokens, "5 more tokens than the model"),
    ],
)
def test_a_broken_part_is_refused_with_what_to_do(
    mine: Path, broken: Callable[[Path], Any], said: str
) -> None:
    broken(mine)
    assert said in refused(mine)


@pytest.mark.parametrize(
    ("packed", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({}, None),
    ],
)
def test_weights_packed_for_one_library_are_refused_before_anything_is_trained(
    mine: Path, packed: dict[str, Any], method: str | None
) -> None:
    set_json(mine / "config.json", quantization_config=packed)
    if method is None:
        take(mine)
    else:
        assert (
            f"base mine: its weights are quantized ({method}), and training, merging and converting need floats; use the model"
            in refused(mine)
        )


def test_weights_in_eight_bits_are_refused_although_no_configuration_says_so(mine: Path) -> None:
    weights = load_file(mine / "model.safetensors")
    packed = {
        name: tensor.to(torch.float8_e4m3fn) if tensor.dim() > 1 else tensor
        for name, tensor in weights.items()
    }
    save_file(packed, mine / "model.safetensors", {"format": "pt"})
    assert re.search(
        r"its weights are quantized \(\S+ is stored as F8_E4M3\), and training, merging",
        refused(mine),
    )


def test_weights_that_are_no_part_of_the_model_are_neither_copied_nor_counted(mine: Path) -> None:
    """Mistral's own form of the same weights, an adapter, a copy in another type."""
    for name in (
        "consolidated.safetensors",
        "consolidated-00001-of-00001.safetensors",
        "adapter_model.safetensors",
        "model.fp16.safetensors",
    ):
        shutil.copyfile(mine / "model.safetensors", mine / name)
    (mine / "consolidated.safetensors.index.json").write_text("{}")
    output, metrics = take(mine)
    assert [path.name for path in output.glob("*.safetensors*")] == ["model.safetensors"]
    assert metrics["parameters"] == sum(
        weight.numel() for weight in load_file(mine / "model.safetensors").values()
    )


def test_a_tokenizer_of_vocab_json_and_merges_txt_is_one(mine: Path) -> None:
    whole = AutoTokenizer.from_pretrained(mine)
    model = json.loads((mine / "tokenizer.json").read_text())["model"]
    (mine / "tokenizer.json").unlink()
    (mine / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (mine / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    marks = {
        "special": True,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    }
    added = {
        str(index): {"content": str(token), **marks}
        for index, token in whole.added_tokens_decoder.items()
    }
    set_json(
        mine / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", added_tokens_decoder=added
    )
    output, _ = take(mine)
    taken = AutoTokenizer.from_pretrained(output)
    assert (output / "tokenizer.json").exists()
    for text in ("Drink water, 250 ml at 10:30.", "<|im_start|>user\nEl niño comió<|im_end|>"):
        assert taken(text)["input_ids"] == whole(text)["input_ids"]


def test_code_from_elsewhere_is_never_run(mine: Path) -> None:
    auto = {
        "AutoConfig": "configuration_mine.MineConfig",
        "AutoModelForCausalLM": "modeling_mine.Mine",
    }
    set_json(mine / "config.json", model_type="mine_of_my_own", auto_map=auto)
    for name in ("configuration_mine.py", "modeling_mine.py"):
        (mine / name).write_text(
            f"import pathlib\npathlib.Path({str(mine / 'was_run')!r}).touch()\n"
        )
    assert "use a base of a supported architecture" in refused(mine)
    assert not (mine / "was_run").exists()


def test_weights_in_several_files_are_all_taken(mine: Path) -> None:
    weights = load_file(mine / "model.safetensors")
    (mine / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {
        "model-00001-of-00002.safetensors": names[:3],
        "model-00002-of-00002.safetensors": names[3:],
    }
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, mine / file, {"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {key: file for file, keys in parts.items() for key in keys},
    }
    (mine / "model.safetensors.index.json").write_text(json.dumps(index))
    output, metrics = take(mine)
    assert metrics["parameters"] == sum(weight.numel() for weight in weights.values())
    assert AutoModelForCausalLM.from_pretrained(output).config.model_type == "llama"


def test_a_base_that_cannot_be_fetched_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = {"name": "far", "hub_id": "nobody/no-such-model", "revision": "0" * 40}
    with pytest.raises(ConfigError) as fault:
        run(recipe, {}, tmp_path)
    said = str(fault.value)
    assert said.startswith("base far: cannot fetch nobody/no-such-model (")
    assert said.endswith("or set folder: in conf/base/far.yaml")
    assert list(tmp_path.iterdir()) == []
