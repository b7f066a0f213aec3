"""chat: a domain's model answers."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_builds import recipe
from small_models import make_model, train_tokenizer

from meetara_build.cli.chat import _talk
from meetara_build.cli.models import Model, Prompt
from meetara_build.errors import DataError
from meetara_build.stages import gguf
from meetara_build.training.chat import encode


def test_a_question_is_answered_the_same_each_time(built_project: Path, command: Any) -> None:
    words = ["chat", "nutrition", "How much protein do I need?", "--tokens", "8"]
    one, other = command(built_project, *words), command(built_project, *words)
    assert one.returncode == 0
    assert one.stdout == other.stdout
    assert one.stderr == ""


def test_an_answer_for_programs_names_its_model(built_project: Path, command: Any) -> None:
    done = command(
        built_project, "chat", "nutrition", "Hello?", "--quant", "Q8_0", "--tokens", "4", "--json"
    )
    content = json.loads(done.stdout)
    assert content["model"].endswith("nutrition-Q8_0.gguf")
    assert content["question"] == "Hello?"
    assert isinstance(content["answer"], str)


def test_a_talk_ends_with_an_empty_line(built_project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meetara_build", "chat", "nutrition", "--tokens", "4"],
        cwd=built_project,
        input="Hello?\nAnd then?\n\nnever read\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("> ") == 3
    assert "an empty line or Ctrl-D ends" in done.stderr


def test_a_model_that_is_not_built_is_named_with_what_to_do(project: Path, command: Any) -> None:
    shutil.rmtree(project / "artifacts")
    done = command(project, "chat", "nutrition", "Hello?")
    assert done.returncode == 1
    assert "nutrition-Q4_K_M.gguf: not built yet; run `meetara-build build`" in done.stderr
    done = command(project, "compare", "nutrition", "base:mini")
    assert "not built yet; run `meetara-build build" in done.stderr


@pytest.mark.parametrize(
    "words", [["chat", "nutritoin", "Hello?"], ["compare", "nutrition", "nutritoin:F16"]]
)
def test_an_unknown_domain_is_answered_with_the_nearest(
    built_project: Path, command: Any, words: list[str]
) -> None:
    done = command(built_project, *words)
    assert done.returncode == 1
    assert done.stderr.endswith("unknown domain 'nutritoin'; did you mean 'nutrition'? [config]\n")


@pytest.mark.parametrize(
    "words",
    [["chat", "nutrition", "?", "--quant", "Q4_K"], ["compare", "nutrition:Q4_K", "nutrition"]],
)
def test_a_type_that_the_domain_has_not_is_answered_with_the_nearest(
    built_project: Path, command: Any, words: list[str]
) -> None:
    done = command(built_project, *words)
    assert done.returncode == 1
    assert "nutrition has no Q4_K file; did you mean 'Q4_K_M'?" in done.stderr


def test_a_model_that_llama_cpp_cannot_load_is_named(project: Path, command: Any) -> None:
    model = project / "artifacts" / "nutrition" / "gguf" / "nutrition-F16.gguf"
    model.unlink()
    model.write_bytes(b"GGUF and no more")
    done = command(project, "chat", "nutrition", "Hello?", "--quant", "F16")
    assert done.returncode == 1
    assert f"{model}: llama.cpp cannot load it" in done.stderr
    assert "verify --repair" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that reads 200 tokens at once."""
    folder = tmp_path_factory.mktemp("short")
    train_tokenizer(folder)
    make_model(
        folder,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        max_position_embeddings=200,
    )
    output = folder / "out"
    output.mkdir()
    gguf.run(recipe(), {"base": folder}, output)
    return Model(output / "nutrition-F16.gguf", "Be kind.")


def asked(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)
    ]


def test_the_oldest_turns_of_a_long_talk_are_left_out(short: Model) -> None:
    turns = asked(*["water " * 20, "wine " * 20] * 6, "And now?")
    prompt = short.prompt(turns, 20)
    assert prompt.left_out % 2 == 0
    assert 0 < prompt.left_out < len(turns) - 1
    assert prompt == Prompt(
        short.reader.prompt([{"role": "system", "content": "Be kind."}, *turns[prompt.left_out :]]),
        *prompt[1:],
    )
    assert prompt.room == 200 - len(prompt.ids) >= 20
    before = short.reader.prompt(
        [{"role": "system", "content": "Be kind."}, *turns[prompt.left_out - 2 :]]
    )
    assert len(before) + 20 > 200, "no more is left out than has to be"


def test_a_talk_goes_on_beyond_the_context_and_says_so(
    short: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = ["water " * 40, "water " * 300, *["wine " * 40] * 4]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(questions) + "\n"))
    _talk(short, 8)
    said = capsys.readouterr()
    assert said.out.count("> ") == 7
    assert said.err.count("the model reads 200 at once: ask a shorter one") == 1
    assert said.err.count("the first 2 turns no longer fit and are left out") >= 2


def test_a_question_that_is_too_long_alone_is_refused_with_both_figures(short: Model) -> None:
    with pytest.raises(
        DataError,
        match=r"nutrition-F16\.gguf: the question has \d{3,} tokens .* reads 200 at once: ask a shorter one",
    ):
        short.prompt(asked("water " * 300), 20)


def test_a_question_that_leaves_little_room_is_answered_in_it(short: Model) -> None:
    prompts = (short.prompt(asked("a 1" * count), 100) for count in range(200))
    prompt = next(prompt for prompt in prompts if prompt.room <= 8)
    assert prompt.room == 200 - len(prompt.ids) <= 8
    assert len(list(short.answer(prompt, 100))) <= prompt.room


def test_a_talk_reads_control_tokens_in_its_texts_as_training_does(short: Model) -> None:
    from transformers import AutoTokenizer

    turns = asked("What is <|im_end|>?", "It ends <|im_start|>turns.", "<|endoftext|>?")
    tokenizer = AutoTokenizer.from_pretrained(short.path.parents[1])
    system = {"role": "system", "content": "Be kind."}
    whole = encode(tokenizer, [system, *turns, {"role": "assistant", "content": "Yes."}])
    prompt = len(whole.mask) - whole.mask[::-1].index(False)
    assert short.prompt(turns, 8).ids == whole.ids[:prompt]
