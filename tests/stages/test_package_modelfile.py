"""A Modelfile speaks the base's template: what Ollama writes by it is, in tokens of the file, what
training reads.

Ollama's side is a record of its own code's answers (tests/ollama_prompts.json); an answer holds for
the Modelfile that it was asked with.
"""

from pathlib import Path
from typing import Any

import pytest
from chat_templates import FAMILIES
from gguf_builds import fresh, recipe
from ollama import (
    CONVERSATIONS,
    GIVEN,
    ODD_PROMPTS,
    PROMPT,
    TALKS,
    WITH_ENDS,
    as_said,
    list_prompts,
    make_file,
    read_record,
    talk,
)
from projects import REPOSITORY
from small_models import make_model, train_sentencepiece_like, train_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.architectures import KINDS
from meetara_build.errors import ProofError
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import gguf
from meetara_build.stages.package.chat_turns import take_apart
from meetara_build.stages.package.modelfile import added_start, can_hold, modelfile
from meetara_build.training.chat import encode, render
from meetara_build.training.turns import Message

OF_ARCHITECTURES = {
    "llama": "llama3.2",
    "qwen2": "qwen2.5",
    "mixtral": "mistral",
    "stablelm": "zephyr",
    "starcoder2": "instruction",
    "gpt2": "chatml",
    "gpt_neox": "oasst",
    "bloom": "chatml",
    "ernie4_5": "ernie",
    "seed_oss": "seed",
    "hunyuan_v1_dense": "hunyuan",
    "phi": "phi2",
    "gemma2": "gemma",
    "gemma3_text": "gemma3",
    "qwen3_moe": "qwen3",
    **{name: name for name in ("phi3", "mistral", "olmo", "olmo2", "olmo3", "granite", "smollm3")},
    **{name: name for name in ("cohere", "glm4", "exaone4", "nemotron", "apertus", "gemma")},
    **{name: name for name in ("qwen3", "falcon")},
}
"""The template of a well-known model of each architecture of the bench; ChatML where it has none."""
OF_BASES = {
    "tiny": "chatml",
    "llama3_2_1b": "llama3.2",
    "gemma2_2b": "gemma",
    "phi3_5_mini": "phi3",
    **dict.fromkeys(("qwen2_5_0_5b", "qwen2_5_1_5b", "qwen2_5_7b"), "qwen2.5"),
    **dict.fromkeys(
        ("smollm2_135m", "smollm2_135m_hub", "smollm2_360m", "smollm2_1_7b"), "smollm2"
    ),
}
"""The template of each base."""
NOT_WRITTEN = {"mistral3"}
CUTS_ENDS = {"llama3", "llama3.2", "gemma", "gemma3", "cohere", "nemotron", "smollm3"}
"""Whose templates cut spaces or line ends at the ends of a question or an answer."""
NOT_TRAINED = {"exaone4"}
"""Whose template asks for an answer otherwise than it writes one, so that nothing can be learnt."""

WRITTEN = [family for family in FAMILIES if family not in NOT_WRITTEN]
PROMPTS = [(family, name) for family in WRITTEN for name in list_prompts(family)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A base of each family with its GGUF file, made where it is first asked for."""
    made: dict[str, Path] = {}

    def find(family: str) -> tuple[Path, Path]:
        if family not in made:
            made[family] = make_file(family, tmp_path_factory.mktemp("base"))
        return made[family].parents[1], made[family]

    return find


def read_as_trained(
    family: str, tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: str | None
) -> list[int]:
    """The ids that training has up to the last answer, as for a record of a domain with this system
    prompt."""
    own = [] if messages[0]["role"] == "system" or not prompt else talk(system=prompt)
    if family in NOT_TRAINED:
        text = render(tokenizer, [*own, *messages], ask=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    whole = encode(tokenizer, [*own, *messages, {"role": "assistant", "content": "So."}])
    return whole.ids[: len(whole.mask) - whole.mask[::-1].index(False)]


def test_all_architectures_of_the_bench_and_all_bases_have_their_template_here() -> None:
    assert OF_ARCHITECTURES.keys() == KINDS.keys()
    bases = {path.stem for path in (REPOSITORY / "conf" / "base").glob("*.yaml")}
    assert OF_BASES.keys() == bases
    assert not {*OF_ARCHITECTURES.values(), *OF_BASES.values()} - set(WRITTEN)


@pytest.mark.parametrize(("family", "name"), PROMPTS)
def test_ollama_writes_the_tokens_that_training_reads(family: str, name: str, folders: Any) -> None:
    base, file = folders(family)
    prompt, record = list_prompts(family)[name], read_record()
    kept = record["files"][f"{family}, {name}"]
    assert modelfile(prompt, "x.gguf", base, file) == kept["modelfile"], (
        "run scripts/ollama_prompts.py: Ollama was asked with another Modelfile"
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    compared = 0
    with Model(file, vocab_only=True) as model:
        for messages, written in zip(CONVERSATIONS, kept["prompts"], strict=True):
            if family in CUTS_ENDS and messages[-1]["content"] == WITH_ENDS[-1]:
                continue
            assert model.tokenize(written, add_special=True) == read_as_trained(
                family, tokenizer, messages, prompt
            )
            compared += 1
    assert compared >= 2 * len(TALKS)


@pytest.mark.parametrize(("family", "name"), PROMPTS)
def test_the_proof_of_a_build_writes_what_ollama_writes(
    family: str, name: str, folders: Any
) -> None:
    """Which has no Ollama: it fills the texts around the turns by itself."""
    base, file = folders(family)
    prompt, kept = list_prompts(family)[name], read_record()["files"][f"{family}, {name}"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    with Model(file, vocab_only=True) as model:
        turns = take_apart(tokenizer, added_start(model))
    system = turns.find_said(tokenizer, prompt) if prompt else None
    if system and not kept["system"]:
        turns, system = turns.begin_with(system), None
    for messages, written in zip(as_said(family), kept["prompts"], strict=True):
        own = [] if messages[0]["role"] == "system" or not system else talk(system=system)
        assert turns.write([*own, *messages]) == written


@pytest.mark.parametrize("family", WRITTEN)
def test_the_file_s_own_template_writes_what_the_base_s_writes(family: str, folders: Any) -> None:
    """It is what llama.cpp and LM Studio use."""
    base, file = folders(family)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with Model(file, vocab_only=True) as model:
        for messages in CONVERSATIONS:
            asked = render(tokenizer, messages, ask=True)
            assert model.prompt(messages) == tokenizer(asked, add_special_tokens=False)["input_ids"]


# What a runtime adds, and where it stops


@pytest.mark.parametrize(
    ("family", "added"),
    [
        *(("llama3.2", "<|begin_of_text|>"), ("gemma", "<bos>"), ("mistral", "<s>")),
        *(("smollm2", ""), ("qwen2.5", ""), ("olmo2", "")),
        *(("phi3", ""), ("zephyr", "")),  # their tokenizers add <s>, their templates do not
    ],
)
def test_a_file_has_runtimes_add_a_first_token_where_conversations_begin_with_it(
    family: str, added: str, folders: Any
) -> None:
    _, file = folders(family)
    with Model(file, vocab_only=True) as model:
        assert added_start(model) == added
        assert model.metadata()["tokenizer.ggml.add_bos_token"] == str(bool(added)).lower()


def test_the_first_token_stays_where_the_file_does_not_add_it() -> None:
    (prompt, *_) = read_record()["files"]["smollm2, given"]["prompts"]
    assert prompt.startswith("<|im_start|>system\nYou are a dietitian.<|im_end|>\n<|im_start|>user")


@pytest.mark.parametrize("family", WRITTEN)
def test_ollama_stops_at_every_token_that_ends_an_answer_and_at_nothing_else(
    family: str, folders: Any
) -> None:
    _, file = folders(family)
    with Model(file, vocab_only=True) as model:
        ends = {model.text_of(token) for token in range(model.n_vocab) if model.is_end(token)}
    assert sorted(read_record()["files"][f"{family}, given"]["stops"]) == sorted(ends)


@pytest.mark.parametrize(
    ("family", "stops"),
    [
        ("qwen2.5", {"<|im_end|>"}),
        ("llama3", {"<|eot_id|>"}),
        ("gemma", {"<end_of_turn>", "<eos>"}),
        ("phi3", {"<|end|>", "<|endoftext|>"}),
        ("mistral", {"</s>"}),
        ("olmo3", {"<|im_end|>", "<|endoftext|>"}),
        ("apertus", {"<|assistant_end|>"}),
    ],
)
def test_an_answer_ends_where_the_template_ends_it(family: str, stops: set[str]) -> None:
    assert set(read_record()["files"][f"{family}, given"]["stops"]) == stops


# System texts


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        *(("ends", "SYSTEM"), ("template", "SYSTEM")),
        *(("quotes", "TEMPLATE"), ("unprintable", "TEMPLATE")),
    ],
)
def test_a_system_prompt_that_system_cannot_hold_stands_in_the_template(
    name: str, stands: str
) -> None:
    kept = read_record()["files"][f"chatml, {name}"]
    assert kept["system"] == (ODD_PROMPTS[name] if stands == "SYSTEM" else "")
    assert kept["prompts"][0].startswith(f"<|im_start|>system\n{ODD_PROMPTS[name]}<|im_end|>\n")
    assert kept["prompts"][1].startswith(f"<|im_start|>system\n{GIVEN}<|im_end|>\n"), (
        "whoever asks may still give another one"
    )


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('"Well" is how to begin', True),
        ('Begin every answer with "Well"', True),
        ('Quote """so""" within a line.\nThen go on.', True),
        ('Begin functions with\n"""A docstring."""\nThen code.', False),
        ('"""  \nA text between.', False),
        ('\n""\nThen more', True),
        ("\ttab, \r\n and नमस्ते 🙂", True),
        ("a no-break\u00a0space", False),
        ("👩🏽\u200d⚕️", False),
    ],
)
def test_what_ollama_s_parser_takes_whole_of_a_text(text: str, whole: bool) -> None:
    assert can_hold(text) == whole


def test_the_default_of_a_base_stands_where_the_domain_has_no_system_prompt() -> None:
    kept = read_record()["files"]["qwen2.5, none"]
    assert kept["system"] == ""
    assert kept["prompts"][0].startswith(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    )
    assert "You are Qwen" not in kept["prompts"][1]


def test_a_modelfile_does_not_depend_on_the_day() -> None:
    """Granite's template writes the day, which is always the same for a build."""
    kept = read_record()["files"]["granite, none"]
    assert "Today's Date: July 26, 2024." in kept["prompts"][0]


# What cannot be written


def test_a_template_that_ollama_s_language_cannot_say_is_refused(folders: Any) -> None:
    base, file = folders("mistral3")
    with pytest.raises(ProofError, match="cannot say what the base's chat template says"):
        modelfile(PROMPT, "x.gguf", base, file)


def test_a_system_prompt_with_a_control_token_is_refused(folders: Any) -> None:
    """In training it is text, and Ollama reads all that looks like a control token as one."""
    base, file = folders("chatml")
    with pytest.raises(ProofError, match="take it out of the system_prompt"):
        modelfile("End turns with <|im_end|>.", "x.gguf", base, file)


def test_a_control_token_in_a_question_is_text_in_chat_and_a_token_in_ollama(folders: Any) -> None:
    """Ollama turns the whole conversation into tokens at once, which docs/limits.md tells."""
    base, file = folders("chatml")
    tokenizer = AutoTokenizer.from_pretrained(base)
    question = talk("What does <|im_start|> mean?")
    with Model(file, vocab_only=True) as model:
        (start,) = model.tokenize("<|im_start|>")
        written = take_apart(tokenizer, added_start(model)).write(question)
        read, chat = model.tokenize(written, add_special=True), model.prompt(question)
    assert chat == read_as_trained("chatml", tokenizer, question, None)
    assert chat.count(start) == 2, "a question and an answer begin"
    assert read.count(start) == 3
    assert tokenizer.decode(chat) == tokenizer.decode(read)


# Vocabularies as published ones are


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("cut", ["gpt2", "llama3", "sentencepiece"])
def test_learnt_merges_change_nothing(cut: str, bos: bool, tmp_path: Path) -> None:
    """The bench's architectures have these vocabularies; one in three begins texts with a token
    that its template does not write."""
    if cut == "sentencepiece":
        train_sentencepiece_like(tmp_path)
    else:
        train_tokenizer(tmp_path, cut, bos=bos)
    make_model(tmp_path, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))
    expect_trained_tokens(
        AutoTokenizer.from_pretrained(tmp_path), tmp_path, tmp_path / "out" / "nutrition-F16.gguf"
    )


def test_the_default_base_s_own_file_reads_what_training_reads(default_base: Any) -> None:
    tokenizer, file = default_base
    expect_trained_tokens(tokenizer, Path(tokenizer.name_or_path), file)


def expect_trained_tokens(tokenizer: PreTrainedTokenizerBase, base: Path, file: Path) -> None:
    """A base's Modelfile is one that Ollama was asked with, but for its stops, and what Ollama wrote
    has the tokens that chat has of a conversation, and a training of a question.

    Of several turns a training cuts each answer by itself, as a model says it: its first character
    is then in no token with what stands before it.
    """
    family = "smollm2" if "SmolLM" in str(tokenizer.chat_template) else "chatml"
    kept = read_record()["files"][f"{family}, given"]
    assert template_of(modelfile(PROMPT, "x.gguf", base, file)) == template_of(kept["modelfile"])
    with Model(file, vocab_only=True) as model:
        for messages, written in zip(CONVERSATIONS, kept["prompts"], strict=True):
            ids = model.tokenize(written, add_special=True)
            own = [] if messages[0]["role"] == "system" else talk(system=PROMPT)
            assert ids == model.prompt([*own, *messages])
            if len(messages) == 1:
                assert ids == read_as_trained(family, tokenizer, messages, PROMPT)


def template_of(text: str) -> str:
    return text.partition('TEMPLATE """')[2].partition('"""\nPARAMETER')[0]
