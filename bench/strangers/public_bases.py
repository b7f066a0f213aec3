"""Public reports about base models: each rebuilt on a small random model, saved as its library
saves it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from projects import edit
from safetensors.torch import load_file, save_file
from small_models import CHATML, make_model, train_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer

from bench.strangers.campaign import Place, case, expect, expect_refusal, expect_success
from bench.strangers.inputs import (
    DOMAIN,
    change_json,
    expect_pairs,
    make_base,
    pairs,
    prepare,
    take_base,
    turn,
    use_base,
)
from meetara_build.llama_cpp.model import Model
from meetara_build.store.manifest import read_manifest
from meetara_build.training.chat import encode

THINKING = """{%- set last = namespace(at=-1) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.at = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.index0 > last.at %}<think>

</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>

</think>

{% endif -%}"""
"""As Qwen3's: an answer is thought about where it is the last one, and no longer where another
question follows."""


def expect_built(place: Place, project: Path) -> Path:
    """The domain ``garden`` is built up to its package; its GGUF files' folder."""
    expect_success(place.run(project, "build", DOMAIN))
    expect(
        (project / "artifacts" / DOMAIN / "package" / "Modelfile").exists(), "nothing is packaged"
    )
    return project / "artifacts" / DOMAIN / "gguf"


def expect_untrained(place: Place, project: Path, *words: str) -> None:
    """A build is refused with these words before anything is trained."""
    said = place.run(project, "build", DOMAIN)
    expect(
        said.code == 1 and "Traceback" not in said.text and "unexpected" not in said.text, said.text
    )
    missing = [word for word in words if word not in said.text]
    expect(not missing, f"{missing} not in: {said.text}")
    expect(
        not (project / "artifacts" / DOMAIN / "adapter").exists(), "an adapter was trained before"
    )


@case(
    "5",
    "generation stops at the token that ends a turn, where that is not the one that ends a text",
)
def own_turn_end(place: Place) -> None:
    folder = place.folder / "base"
    train_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = [AddedToken(token, special=True, normalized=False) for token in ("<|says|>", "<|over|>")]
    tokenizer.add_special_tokens({"additional_special_tokens": ends})
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<|says|>").replace(
        "<|im_end|>", "<|over|>"
    )
    tokenizer.save_pretrained(folder)
    make_model(folder)
    over = tokenizer.convert_tokens_to_ids("<|over|>")
    change_json(folder / "generation_config.json", eos_token_id=[tokenizer.eos_token_id, over])
    project = use_base(place, folder)
    expect_success(place.run(project, "stage", "base", "base/own"))
    expect_success(place.run(project, "stage", "gguf", "base/own"))
    made = list((project / "artifacts" / "base").rglob("*.gguf"))
    expect(bool(made), "no GGUF file of the base")
    for path in made:
        with Model(path, vocab_only=True) as model:
            expect(model.is_end(over), f"{path.name}: <|over|> is no end")


@case(
    "11a",
    "a base whose weights are quantized for one library is refused before anything is trained",
)
def quantized_bases(place: Place) -> None:
    whole = make_base(place.folder / "base")
    ways = {
        "bitsandbytes": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
        },
        "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
        "awq": {"quant_method": "awq", "bits": 4, "version": "gemm"},
    }
    for name, way in ways.items():
        folder = Path(shutil.copytree(whole, place.folder / name))
        change_json(folder / "config.json", quantization_config=way)
        _, said = take_base(place, folder)
        expect_refusal(said, name, "quantized")


@case("12", "a chat template with {% generation %} marks is taken, and built with")
def generation_marks(place: Place) -> None:
    marked = CHATML.replace(
        "{{ message['content'] }}<|im_end|>\n",
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n",
    )
    expect_built(place, use_base(place, make_base(place.folder / "base", template=marked)))


@case("13", "of a list of chat templates the default one is used")
def several_templates(place: Place) -> None:
    folder = make_base(place.folder / "base")
    (folder / "chat_template.jinja").unlink()
    tools = "{{ raise_exception('no tools are given') }}"
    listed = [{"name": "tool_use", "template": tools}, {"name": "default", "template": CHATML}]
    change_json(folder / "tokenizer_config.json", chat_template=listed)
    project, said = take_base(place, folder)
    expect_success(said)
    expect_success(place.run(project, "stage", "gguf", "base/own"))
    expect_pairs(prepare(place, project), pairs())


@case(
    "14",
    "a record that the template cannot split is named or learnt in its last answer; the others are not refused with it",
)
def thinking_in_the_last_turn(place: Place) -> None:
    folder = make_base(place.folder / "base", template=THINKING)
    known = pairs()
    records = [{"messages": [turn("user", q), turn("assistant", a)]} for q, a in known]
    records[16]["messages"] += [
        turn("user", "And in a wet summer?"),
        turn("assistant", "Then not at all, let it dry out."),
    ]
    project = use_base(place, folder, records)
    expect_success(place.run(project, "stage", "base", "base/own"))
    learnt = prepare(place, project)
    kept = {chat[0]["content"] for chat in learnt.chats}
    expect({q for n, (q, _) in enumerate(known) if n != 16} <= kept, f"{len(kept)} kept")
    named = [entry for entry in learnt.faults if entry["source"].startswith(f"{DOMAIN}.jsonl")]
    of_it = [chat for chat in learnt.chats if len(chat) == 4]
    expect(bool(of_it) or "17" in json.dumps(named), named)


@case(
    "15",
    "LoRA on embeddings that are tied to the head is refused before the training, with keys that exist",
)
def tied_embeddings(place: Place) -> None:
    folder = make_base(place.folder / "base", tie_word_embeddings=True)
    for target in ("lm_head", "embed_tokens"):
        project = use_base(place, folder)
        edit(project / "conf" / "build.yaml", "lora.targets", ["q_proj", target])
        expect_untrained(place, project, target, "lora.targets")
        shutil.rmtree(project)


def expect_built_with_targets(place: Place, targets: list[str]) -> None:
    """A base with embeddings and head of their own is adapted in these layers."""
    folder = make_base(place.folder / "base", tie_word_embeddings=False)
    project = use_base(place, folder)
    edit(project / "conf" / "build.yaml", "lora.targets", targets)
    made = {path.name for path in expect_built(place, project).glob("*.gguf")}
    expect({f"{DOMAIN}-F16.gguf", f"{DOMAIN}-lora.gguf"} <= made, made)


@case("15b", "LoRA on untied embeddings is built, its LoRA file too")
def untied_embeddings(place: Place) -> None:
    expect_built_with_targets(place, ["q_proj", "embed_tokens"])


@case("15c", "LoRA on an untied head is built")
def untied_head(place: Place) -> None:
    expect_built_with_targets(place, ["q_proj", "lm_head"])


@case("16", "records longer than a base's positions are refused with the figure and the key")
def few_positions(place: Place) -> None:
    folder = place.folder / "base"
    train_tokenizer(folder)
    make_model(folder, "gpt2", max_position_embeddings=48)
    project = use_base(place, folder)
    expect_untrained(place, project, "48", "data.max_tokens")


@case(
    "31", "a second copy of the weights in the publisher's own form is neither copied nor counted"
)
def consolidated(place: Place) -> None:
    folder = make_base(place.folder / "base")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name.replace("model.", ""): weight for name, weight in weights.items()},
        folder / "consolidated.safetensors",
    )
    project, said = take_base(place, folder)
    expect_success(said)
    taken = project / "artifacts" / "base" / "own" / "model"
    expect(not (taken / "consolidated.safetensors").exists(), "it is copied")
    counted = read_manifest(taken / "manifest.json").metrics["parameters"]
    expect(counted == sum(weight.numel() for weight in weights.values()), counted)


@case(
    "33",
    "a tokenizer of vocab.json and merges.txt is one; folders without a whole model are named as what they are",
)
def other_folders(place: Place) -> None:
    folder = make_base(place.folder / "base")
    whole = AutoTokenizer.from_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    slow = Path(shutil.copytree(folder, place.folder / "slow"))
    (slow / "tokenizer.json").unlink()
    (slow / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (slow / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    marks = {
        "special": True,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    }
    added = {
        str(number): {"content": str(token), **marks}
        for number, token in whole.added_tokens_decoder.items()
    }
    change_json(
        slow / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", added_tokens_decoder=added
    )
    project, said = take_base(place, slow)
    expect_success(said)
    taken = AutoTokenizer.from_pretrained(project / "artifacts" / "base" / "own" / "model")
    text = "<|im_start|>user\nHow deep do I sow 12 beans?<|im_end|>"
    expect(taken(text)["input_ids"] == whole(text)["input_ids"], taken(text)["input_ids"])
    expect_refused_parts(place, folder)


def expect_refused_parts(place: Place, whole: Path) -> None:
    """An adapter alone, and a GGUF file alone, are no base in Hugging Face form, and the message
    says what is missing."""

    def adapter_alone(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/base"})
        )
        save_file({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")

    def gguf_alone(folder: Path) -> None:
        (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(64))

    parts: dict[str, Callable[[Path], None]] = {"adapter": adapter_alone, "quantized": gguf_alone}
    for name, make in parts.items():
        folder = place.folder / name
        folder.mkdir()
        make(folder)
        _, said = take_base(place, folder)
        expect_refusal(said, "config.json")


@case("27", "control tokens that are written in a text stay text, in data and in training")
def control_tokens_in_texts(place: Place) -> None:
    project = place.project(built=True)
    text = "ChatML ends a turn with <|im_end|>\n<|im_start|>user\nand begins the next so. <|endoftext|> ends all."
    records = [
        {"prompt": q, "response": a} for q, a in [*pairs(), ("How does ChatML write turns?", text)]
    ]
    source = place.write_lines(place.folder / f"{DOMAIN}.jsonl", records)
    expect_success(place.run(project, "add-domain", DOMAIN, "--from", str(source)))
    chat = next(
        (
            chat
            for chat in prepare(place, project).chats
            if chat[-1]["content"].startswith("ChatML")
        ),
        None,
    )
    if chat is None:  # a fault by line is right as well
        expect(
            "41" in place.run(project, "data", "check", DOMAIN).text,
            "the record is left out without a word",
        )
        return
    expect(chat[-1]["content"] == text, chat)
    tokenizer = AutoTokenizer.from_pretrained(project / "artifacts" / "base" / "mini" / "model")
    ids = encode(tokenizer, chat).ids
    counts = [
        ids.count(tokenizer.convert_tokens_to_ids(token))
        for token in ("<|im_start|>", "<|im_end|>")
    ]
    expect(counts == [len(chat)] * 2, f"{counts} starts and ends of {len(chat)} turns")
