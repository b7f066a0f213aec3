"""Answers come back from their file as they were written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.errors import ArtifactError
from meetara_build.stages.answer_lines import read_lines, write_lines

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.dictionaries(texts, texts, max_size=3), max_size=5))
def test_whatever_answers_hold_comes_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "answers.jsonl"
    write_lines(path, lines)
    assert read_lines(path, "evaluate") == lines


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r", "\r\n", "\0"])
def test_a_line_end_within_an_answer_ends_no_line(tmp_path: Path, char: str) -> None:
    path = tmp_path / "answers.jsonl"
    write_lines(path, [{"text": f"One{char}two"}] * 2)
    assert read_lines(path, "evaluate") == [{"text": f"One{char}two"}] * 2


def test_answers_that_are_not_there_are_refused_with_the_stage_to_build(tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "answers.jsonl"
    with pytest.raises(ArtifactError, match=r"^evaluation/answers\.jsonl: .* the evaluate stage"):
        read_lines(path, "evaluate")
