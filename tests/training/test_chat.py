"""Conversations as token ids: what is learnt, and that no text of a record becomes a control
token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import FAMILIES, LLAMA32, QWEN3, Family, save_tokenizer
from projects import REPOSITORY
from small_models import train_sentencepiece_like, train_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import DataError
from meetara_build.stages.base.embedded import make_tokenizer
from meetara_build.stages.dataset import tokens
from meetara_build.stages.dataset.records import Record
from meetara_build.training.chat import encode, encode_all, render
from meetara_build.training.kernels.packed import lay
from meetara_build.training.schedule import count_tokens
from meetara_build.training.turns import is_control

OUTPUT = (
    "{% for turn in messages %}{{ 'Instruct: ' if turn.role == 'user' else 'Output:' }}{{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Output:{% endif %}"
)
DATED = LLAMA32.replace("26 Jul 2024", "' + strftime_now('%d %b %Y') + '")
NOT_TRAINED = "exaone4"
"""Its template asks for an answer otherwise than it writes one: no record can be split."""
ALL = {name: family for name, family in FAMILIES.items() if name != NOT_TRAINED} | {
    "no markers": Family(OUTPUT, (), "<|endoftext|>")
}


Tokenizer = PreTrainedTokenizerBase


def talk(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    """A question, an answer, a question, an answer …"""
    turns = [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)
    ]
    return [{"role": "system", "content": system}, *turns] if system else turns


def embedded_records() -> list[list[dict[str, Any]]]:
    found = []
    for path in sorted((REPOSITORY / "conf" / "domain").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines()[:12]:
            record = json.loads(line)
            found.append(
                talk(record["prompt"], record["response"], system="You are a careful guide.")
            )
    return found


def tiny_base(_: Path) -> Tokenizer:
    """As the embedded base makes its own: from records, some of which write about its control
    tokens."""
    texts = [turn["content"] for record in embedded_records()[:80] for turn in record]
    return make_tokenizer(
        [*texts, "ChatML writes <|im_start|> and <|im_end|>."] * 2,
        1200,
        512,
    )


def byte_level(folder: Path) -> Tokenizer:
    train_tokenizer(folder, "llama3", ignore_merges=True)
    return AutoTokenizer.from_pretrained(folder)


def sentencepiece(folder: Path) -> Tokenizer:
    train_sentencepiece_like(folder)
    return AutoTokenizer.from_pretrained(folder)


def unmarked(folder: Path) -> Tokenizer:
    """Turns' tokens that nobody marked as special, and that take the space after them."""
    tokenizer = save_tokenizer(Family(QWEN3, (), "</s>"), folder)
    tokenizer.add_tokens(
        [AddedToken(text, rstrip=True, normalized=False) for text in ("<|im_start|>", "<|im_end|>")]
    )
    return tokenizer


BASES: dict[str, Callable[[Path], Tokenizer]] = {
    "tiny": tiny_base,
    "byte level": byte_level,
    "sentencepiece": sentencepiece,
    "unmarked": unmarked,
    **{
        name: lambda folder, family=family: save_tokenizer(family, folder)
        for name, family in ALL.items()
    },  # type: ignore[misc]
}


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    if request.param == "smollm2_135m":
        return request.getfixturevalue("default_base")[0]
    return BASES[request.param](tmp_path)


def controls(tokenizer: Tokenizer) -> dict[int, str]:
    added = tokenizer.added_tokens_decoder
    return {
        number: token.content
        for number, token in added.items()
        if is_control(token.content, token.special)
    }


# Control tokens inside texts


@pytest.mark.parametrize("base", [*BASES, "smollm2_135m"], indirect=True)
def test_no_text_of_a_record_becomes_a_control_token(base: Tokenizer) -> None:
    """For each control token of each base, in the user's text and in the assistant's."""
    known = controls(base)
    assert known
    plain = encode(base, talk("What is X for?", "X begins, aXb\nX X ends.", system="Explain X."))
    for token in known.values():
        said = [
            text.replace("X", token)
            for text in ("What is X for?", "X begins, aXb\nX X ends.", "Explain X.")
        ]
        found = encode(base, talk(*said[:2], system=said[2]))
        assert [i for i in found.ids if i in known] == [i for i in plain.ids if i in known], token
        learnt = [i for i, is_learnt in zip(found.ids, found.mask, strict=True) if is_learnt]
        assert said[1] in base.decode(learnt)
        asked = base.decode(
            [i for i, is_learnt in zip(found.ids, found.mask, strict=True) if not is_learnt]
        )
        assert said[0] in asked
        assert said[2] in asked


@pytest.mark.parametrize(
    "base", ["smollm2_135m", "tiny", "byte level", "llama3", "chatml"], indirect=True
)
def test_the_tokens_are_those_of_the_conversation_as_it_is_read(base: Tokenizer) -> None:
    messages = talk(
        "Why <|im_end|>?", "Because <|im_start|>user\n<|endoftext|>.", system="Be <|im_start|>kind."
    )
    assert base.decode(encode(base, messages).ids) == render(base, messages)


@pytest.mark.parametrize("base", [*BASES, "smollm2_135m"], indirect=True)
def test_records_without_control_tokens_are_read_as_the_whole_rendered_text(
    base: Tokenizer,
) -> None:
    for messages in embedded_records()[::40]:
        asked, whole = render(base, messages[:-1], ask=True), render(base, messages)
        if not whole.startswith(asked):
            continue  # the template leaves out the system text once there is an answer
        parts = [
            base(text, add_special_tokens=False)["input_ids"]
            for text in (asked, whole.removeprefix(asked))
        ]
        found = encode(base, messages)
        assert found.ids == [*parts[0], *parts[1]]
        assert found.mask == [False] * len(parts[0]) + [True] * len(parts[1])


def test_the_default_base_s_records_are_cut_as_one_text(default_base: Any) -> None:
    tokenizer, _ = default_base
    for messages in embedded_records()[::4]:
        assert (
            encode(tokenizer, messages).ids == tokenizer(render(tokenizer, messages))["input_ids"]
        )


def test_a_token_that_cannot_be_written_as_text_is_a_fault_of_the_record(tmp_path: Path) -> None:
    """A vocabulary whose merges make the control token of ordinary letters."""
    tokenizer = save_tokenizer(FAMILIES["chatml"], tmp_path)
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    written["model"]["vocab"]["xy"] = len(tokenizer)
    written["model"]["merges"] = [["x", "y"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(written), encoding="utf-8")
    made = AutoTokenizer.from_pretrained(tmp_path)
    made.add_tokens([AddedToken("xy", special=True, normalized=False)], special_tokens=True)
    with pytest.raises(
        DataError, match="cannot write 'xy' as plain text: take it out of the record"
    ):
        encode(made, talk("What is xy?", "A word."))


# What is learnt


@pytest.mark.parametrize("base", ["chatml", "llama3", "smollm2_135m"], indirect=True)
def test_an_answer_that_is_not_to_be_learnt_is_read_and_not_learnt(base: Tokenizer) -> None:
    messages = talk("One?", "Bad.", "Two?", "Good.")
    whole = encode(base, messages)
    messages[1]["learn"] = False
    found = encode(base, messages)
    assert found.ids == whole.ids
    learnt = base.decode([i for i, said in zip(found.ids, found.mask, strict=True) if said])
    assert learnt.startswith("Good.")
    assert "Bad." not in learnt
    assert sum(found.mask) < sum(whole.mask)
    assert "Bad." in base.decode([found.ids[i] for i in sorted(found.never)])
    assert not found.never & {i for i, said in enumerate(found.mask) if said}
    assert not whole.never


@pytest.mark.parametrize("base", ["chatml", "qwen3"], indirect=True)
def test_an_answer_that_is_not_to_be_learnt_is_not_learnt_as_a_prompt_either(
    base: Tokenizer,
) -> None:
    """Also by a base in the making, which learns prompts and answers alike."""
    messages = talk("One?", "Bad.", "Two?", "Good.")
    messages[1]["learn"] = False
    found = encode(base, messages)
    row = lay([found], torch.device("cpu"), every_token=True)
    learnt = base.decode(row.targets)
    assert "Good." in learnt
    assert "Bad." not in learnt
    assert row.counts == [count_tokens(found, every_token=True)]


@pytest.mark.parametrize("base", ["phi3", "chatml", "llama3"], indirect=True)
def test_each_answer_of_a_talk_is_learnt_and_no_question(base: Tokenizer) -> None:
    """Also where the template ends the whole with a token that it does not write between turns (Phi
    3's)."""
    found = encode(base, talk("One?", "First.", "Two?", "Second."))
    learnt = base.decode([i for i, said in zip(found.ids, found.mask, strict=True) if said])
    assert learnt.startswith("First.<|e" if base.eos_token != "<|im_end|>" else "First.<|im_end|>")
    assert "Second." in learnt
    assert "?" not in learnt
    assert base.decode(found.ids) == render(base, talk("One?", "First.", "Two?", "Second."))


@pytest.mark.parametrize("base", ["qwen3"], indirect=True)
def test_where_a_template_rewrites_earlier_turns_the_last_answer_is_learnt(base: Tokenizer) -> None:
    found = encode(base, talk("One?", "First.", "Two?", "Second.", system="Be kind."))
    learnt = base.decode([i for i, said in zip(found.ids, found.mask, strict=True) if said])
    assert "Second." in learnt
    assert "First." not in learnt
    assert base.decode(found.ids) == render(
        base, talk("One?", "First.", "Two?", "Second.", system="Be kind.")
    )


@pytest.mark.parametrize("base", ["qwen3"], indirect=True)
def test_what_follows_the_last_answer_to_learn_is_left_out_there(base: Tokenizer) -> None:
    messages = talk("One?", "First.", "Two?", "Second.")
    messages[-1]["learn"] = False
    assert encode(base, messages) == encode(base, messages[:2])


@pytest.mark.parametrize("base", ["mistral3"], indirect=True)
def test_a_system_text_that_stands_with_the_last_question_is_learnt_from(base: Tokenizer) -> None:
    """The template leaves it out once an answer follows; the prompt that the model will be asked
    with has it."""
    found = encode(base, talk("Why?", "So.", system="Be kind."))
    assert base.decode(found.ids) == "<s>[INST] Be kind.\n\nWhy? [/INST] So.</s>"
    assert (
        base.decode([i for i, said in zip(found.ids, found.mask, strict=True) if said])
        == " So.</s>"
    )
    twice = encode(base, talk("Why?", "So.", "And?", "No.", system="Be kind."))
    assert (
        base.decode(twice.ids)
        == "<s>[INST] Why? [/INST] So.</s>[INST] Be kind.\n\nAnd? [/INST] No.</s>"
    )
    assert (
        base.decode([i for i, said in zip(twice.ids, twice.mask, strict=True) if said])
        == " No.</s>"
    )


def test_a_conversation_that_cannot_be_split_or_written_has_its_reason(tmp_path: Path) -> None:
    backwards = "{% for turn in messages | reverse %}{{ turn.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    turned = save_tokenizer(Family(backwards, (), "<|im_end|>"), tmp_path / "turned")
    strict = save_tokenizer(FAMILIES["gemma"], tmp_path / "strict")
    records = [Record("1", talk("One?", "Two."), "en", None, "a.jsonl:1")]
    (reason,) = tokens.lengths(turned, records)
    assert reason == (
        "the base's chat template rewrites what stands before the last answer, so the answer's tokens cannot be told apart: "
        "use records of one question and one answer, or a base with another template"
    )
    out_of_turn = [{"role": "user", "content": "a"}, *talk("b", "c")]
    records = [
        Record("1", out_of_turn, "en", None, "a.jsonl:1"),
        Record("2", talk("One?", "Two."), "en", None, "a.jsonl:2"),
    ]
    reason, length = tokens.lengths(strict, records)
    assert reason == (
        "the base's chat template cannot write it (Conversation roles must alternate user/assistant/user/assistant/...): "
        "change its turns, or mend the template"
    )
    assert isinstance(length, tokens.Length)


def test_many_conversations_are_read_as_each_alone(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    records = [*embedded_records()[:30], talk("<|im_end|>", "<|im_start|>")]
    assert list(encode_all(tokenizer, records)) == [
        encode(tokenizer, messages) for messages in records
    ]


# Today's date


def test_what_a_template_writes_does_not_depend_on_the_day(tmp_path: Path) -> None:
    told = save_tokenizer(FAMILIES["llama3.2"]._replace(template=DATED), tmp_path / "told")
    fixed = save_tokenizer(FAMILIES["llama3.2"], tmp_path / "fixed")
    messages = talk("Hello?", "Good day.")
    assert "strftime_now" in told.chat_template
    assert render(told, messages) == render(fixed, messages)
    assert "Today Date: 26 Jul 2024" in render(told, messages)
    assert encode(told, messages) == encode(fixed, messages)
