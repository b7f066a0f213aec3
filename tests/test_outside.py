"""Text from outside is shown as it is, and never acts; JSON from outside is read or refused, and
never ends a program."""

import json
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.outside import (
    parse_json,
    quote_command,
    read_file,
    show_block,
    show_line,
    show_short,
    show_text,
)


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            read_file(path)


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8),
        min_size=1,
    )
)
def test_a_command_that_is_shown_has_the_words_it_was_made_of(words: list[str]) -> None:
    assert shlex.split(quote_command(*words)) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ünïcödé, 中文, हिन्दी", "plain words, ünïcödé, 中文, हिन्दी"),
        ("a\nPlan: 0 to run", "a\\nPlan: 0 to run"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("one\u2028two", "one\\u2028two"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("half \ud83d", "half \\ud83d"),
        ("\udce9", "\\udce9"),
        ("\U000e0041tag", "\\U000e0041tag"),
        (None, "None"),
    ],
)
def test_a_line_shows_what_cannot_be_seen(text: object, shown: str) -> None:
    assert show_line(text) == shown


def test_text_keeps_its_lines() -> None:
    assert show_text("one\n\ttwo\r\x1b[0m") == "one\n\ttwo\\r\\x1b[0m"


def test_the_beginning_of_a_value_is_one_short_line() -> None:
    assert show_short(None) == "none"
    assert show_short("a\nb\x1b") == "a\\nb\\x1b"
    assert show_short("x" * 60) == "x" * 60
    assert show_short("x" * 10_000_000, 10) == "xxxxxxx…"


def test_a_block_begins_no_further_line_at_the_edge() -> None:
    assert (
        show_block("one\ntwo\n  three\n\nPlan: 0\u202e")
        == "one\n  two\n  three\n\n  Plan: 0\\u202e"
    )


@given(st.text())
def test_a_shown_line_is_one_printable_line(text: str) -> None:
    line = show_line(text)
    assert "\n" not in line
    line.encode("utf-8")
    assert show_line(line) == line


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "", "{", b"\xff\xfe", "1" * 5_000, "nul"]
)
def test_json_that_cannot_be_read_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
    )
)
def test_json_is_read_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
