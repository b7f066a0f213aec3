"""chat and compare."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_a_question_is_answered_the_same_each_time(built_project: Path, command: Any) -> None:
    words = ["chat", "nutrition", "How much protein do I need?", "--tokens", "8"]
    one, other = command(built_project, *words), command(built_project, *words)
    assert one.returncode == 0
    assert one.stdout == other.stdout
    assert one.stderr == ""


def test_an_answer_for_programs_names_its_model(built_project: Path, command: Any) -> None:
    done = command(built_project, "chat", "nutrition", "Hello?", "--quant", "Q8_0", "--tokens", "4", "--json")
    content = json.loads(done.stdout)
    assert content["model"].endswith("nutrition-Q8_0.gguf")
    assert content["question"] == "Hello?"
    assert isinstance(content["answer"], str)


def test_a_talk_ends_with_an_empty_line(built_project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meetara_build", "chat", "nutrition", "--tokens", "4"],
        cwd=built_project, input="Hello?\nAnd then?\n\nnever read\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
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


@pytest.mark.parametrize("words", [["chat", "nutritoin", "Hello?"], ["compare", "nutrition", "nutritoin:F16"]])
def test_an_unknown_domain_is_answered_with_the_nearest(built_project: Path, command: Any, words: list[str]) -> None:
    done = command(built_project, *words)
    assert done.returncode == 1
    assert done.stderr.endswith("unknown domain 'nutritoin'; did you mean 'nutrition'?\n")


@pytest.mark.parametrize(
    "words", [["chat", "nutrition", "?", "--quant", "Q4_K"], ["compare", "nutrition:Q4_K", "nutrition"]]
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


def test_two_models_answer_the_same_held_out_questions(built_project: Path, command: Any) -> None:
    words = ["compare", "nutrition:F16", "base:mini", "--count", "2", "--tokens", "4"]
    rows = json.loads(command(built_project, *words, "--json").stdout)
    assert [set(row) for row in rows] == [{"question", "nutrition:F16", "base:mini"}] * 2
    test = (built_project / "artifacts" / "nutrition" / "dataset" / "test.jsonl").read_text(encoding="utf-8")
    held_out = [json.loads(line)["messages"] for line in test.splitlines()]
    asked = [turn["content"] for messages in held_out for turn in messages if turn["role"] == "user"]
    assert all(row["question"] in asked for row in rows)
    said = command(built_project, *words, COLUMNS="200").stdout
    assert "base:mini" in said.splitlines()[0]


def test_own_questions_may_be_asked_of_two_bases(built_project: Path, command: Any) -> None:
    done = command(built_project, "compare", "base:mini", "base:mini")
    assert done.returncode == 1
    assert "two bases share no held-out questions; ask with --ask" in done.stderr
    done = command(built_project, "compare", "base:mini", "nutrition", "--ask", "Why?", "--tokens", "2", "--json")
    assert [row["question"] for row in json.loads(done.stdout)] == ["Why?"]


def test_an_unknown_base_is_refused(built_project: Path, command: Any) -> None:
    done = command(built_project, "compare", "base:tony", "nutrition")
    assert done.returncode == 1
    assert "'base/tony'" in done.stderr
    assert "Traceback" not in done.stderr
