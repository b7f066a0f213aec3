"""compare: two models, the same questions."""

import json
from pathlib import Path
from typing import Any


def test_two_models_answer_the_same_held_out_questions(built_project: Path, command: Any) -> None:
    words = ["compare", "nutrition:F16", "base:mini", "--count", "2", "--tokens", "4"]
    rows = json.loads(command(built_project, *words, "--json").stdout)
    assert [set(row) for row in rows] == [{"question", "nutrition:F16", "base:mini"}] * 2
    test = (built_project / "artifacts" / "nutrition" / "dataset" / "test.jsonl").read_text(
        encoding="utf-8"
    )
    held_out = [json.loads(line)["messages"] for line in test.splitlines()]
    asked = [
        turn["content"] for messages in held_out for turn in messages if turn["role"] == "user"
    ]
    assert all(row["question"] in asked for row in rows)
    said = command(built_project, *words, COLUMNS="200").stdout
    assert "base:mini" in said.splitlines()[0]


def test_own_questions_may_be_asked_of_two_bases(built_project: Path, command: Any) -> None:
    done = command(built_project, "compare", "base:mini", "base:mini")
    assert done.returncode == 1
    assert "two bases share no held-out questions; ask with --ask" in done.stderr
    done = command(
        built_project,
        "compare",
        "base:mini",
        "nutrition",
        "--ask",
        "Why?",
        "--tokens",
        "2",
        "--json",
    )
    assert [row["question"] for row in json.loads(done.stdout)] == ["Why?"]


def test_an_unknown_base_is_refused(built_project: Path, command: Any) -> None:
    done = command(built_project, "compare", "base:tony", "nutrition")
    assert done.returncode == 1
    assert "'base/tony'" in done.stderr
    assert "Traceback" not in done.stderr


# What does not fit into what a model reads at once
