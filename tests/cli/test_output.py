"""What is printed is what was written: no markup, no codes, no line that only looks like the
tool's, on every encoding."""

import ast
import io
import json
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import REPOSITORY

from meetara_build.cli import output
from meetara_build.cli.output import Screen, print_json, style_line, table
from meetara_build.outside import write_any_text

FACES = REPOSITORY / "meetara_build" / "cli"
HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "\x9b2J",
    "safe\u202egnp.exe \u2066x\u2069",
    "one\u2028two\u200b",
    "half \ud83d",
    "[bold]x[/] [/nothing] [link=http://evil]docs[/link]",
    "root:x:0 :smiley:",
]
STEERS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printed(*things: object, **options: object) -> str:
    """What a screen prints on a terminal that has no colours."""
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system=None, width=300)
    screen.print(*things, **options)  # type: ignore[arg-type]
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_line_a_cell_a_heading_or_a_style_steers_a_terminal(text: str) -> None:
    shown = table(f"head {text}")
    shown.add_row(text)
    shown.add_row(style_line((text, "bold"), (text, "")))
    lines = (
        printed(text)
        + printed(shown)
        + printed(style_line((text, "red")))
        + printed(text, style="dim")
    )
    assert not STEERS.search(lines.replace("\n", ""))


@pytest.mark.parametrize(
    "text",
    ["[bold]x[/]", "[/]", "[/data/x.jsonl]", "root:x:0", ":x: :smiley:", "[link=http://a]b[/link]"],
)
def test_markup_and_codes_of_emoji_are_text(text: str) -> None:
    shown = table("")
    shown.add_row(text)
    assert printed(text) == f"{text}\n"
    assert printed(shown).split() == text.split()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\x0b", "\x85", "\n\u200d"])
def test_no_quoted_text_begins_a_line_where_the_tool_s_own_lines_begin(end: str) -> None:
    forged = f"a reason{end}Plan: 0 to run, 0 to restore, 0 maybe, 999 fresh."
    shown = table("what")
    shown.add_row(style_line((forged, "")))
    for text in (printed(f"why: {forged}"), printed(style_line((forged, ""))), printed(shown)):
        assert not [line for line in text.splitlines() if line.startswith("Plan:")]


@given(st.text(st.characters(codec=None)))
def test_what_is_printed_is_always_printable(text: str) -> None:
    assert not STEERS.search(printed(text).replace("\n", "").replace("\t", " "))


# JSON


def streams(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    write_any_text()
    return raw


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "ascii"])
@pytest.mark.parametrize("text", [*HOSTILE, "é → … 🚀 中文", "می\u200cخواهم", "a\nb\tc"])
def test_json_says_exactly_what_it_was_given_and_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str
) -> None:
    raw = streams(monkeypatch, encoding)
    print_json({"said": text})
    line = raw.getvalue().decode(encoding)
    assert json.loads(line) == {"said": text}
    assert not STEERS.search(line.replace("\n", ""))


# Encodings


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "● é 16 → 8… ×2 🚀"),
        ("cp1252", "* é 16 -> 8… ×2 \\U0001f680"),
        ("latin-1", "* é 16 -> 8... ×2 \\U0001f680"),
        ("ascii", "* \\xe9 16 -> 8... x2 \\U0001f680"),
    ],
)
def test_a_stream_that_lacks_a_character_gets_a_plainer_one_or_an_escape(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    raw = streams(monkeypatch, encoding)
    print("● é 16 → 8… ×2 🚀")
    output.out.print("● é 16 → 8… ×2 🚀")
    assert raw.getvalue().decode(encoding) == f"{shown}\n{shown}\n"


def test_bytes_of_a_file_s_name_that_are_no_text_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = streams(monkeypatch, "utf-8")
    print("caf\udce9.csv")
    output.out.print("caf\udce9.csv")
    assert raw.getvalue().decode() == "caf\\udce9.csv\ncaf\\udce9.csv\n"


# One border


def imports() -> Iterator[tuple[str, str]]:
    for path in sorted(FACES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rich":
                yield path.name, next(alias.name for alias in node.names)


def test_consoles_and_styled_text_are_made_in_one_place() -> None:
    """A string passes `Screen` on its way; a `Text` or a `Console` made elsewhere would pass by
    it."""
    assert {
        name
        for name, what in imports()
        if what in ("Console", "Text", "print", "Markdown", "Syntax")
    } == {"output.py"}
