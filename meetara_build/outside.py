"""Text and JSON from outside: data, logs, agents, other programs' files. Read without a crash,
shown without a trick."""

import codecs
import errno
import io
import json
import re
import shlex
import stat
import sys
import unicodedata
from pathlib import Path
from typing import Any

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of what prints nothing, moves the cursor or turns the direction of a
line."""
SPEAKER = r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}"
"""The name of whoever says something to the others: an agent, a token, a person."""
JOINERS = "\u200c\u200d"
"""Format characters that words of Persian and of Indian scripts, and emoji, are written with."""
PLAINER = {
    "→": "->",
    "…": "...",
    "●": "*",
    "×": "x",
    "─": "-",
    "│": "|",
    "├": "|",
    "└": "|",
    "—": "-",
    "–": "-",
}
"""What the tool's own words are written with where an output has no such character."""


Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""Any JSON value."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or it cannot be held: not UTF-8, nested too deep, a number of
            thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def read_file(path: Path) -> bytes:
    """The bytes of a regular file: of a pipe or a device there may be no end.

    Raises:
        OSError: it is none, is not there, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.read_bytes()


def quote_command(*words: object) -> str:
    """A command line as a shell takes it: words with spaces, quotes or braces in them are
    quoted."""
    return shlex.join(map(str, words))


def show_line(text: object) -> str:
    """Text as one line of a message or a table: what would break the line, or cannot be seen, is
    written as an escape."""
    line = str(text)
    return line if line.isprintable() else "".join(_visible(char) for char in line)


def show_short(value: object, length: int = 60) -> str:
    """The beginning of a value, as one line of so many characters; "none" for None."""
    text = "none" if value is None else str(value)
    line = show_line(text[: length + 1])
    return line if len(line) <= length else f"{line[: length - 3]}…"


def first_line(error: BaseException) -> str:
    """The first line of what a library says went wrong, or else the name of its error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def show_text(text: object) -> str:
    """Text over several lines: line ends and tabs stay, whatever else cannot be seen is written as
    an escape."""
    return "\n".join("\t".join(map(show_line, line.split("\t"))) for line in str(text).split("\n"))


def show_block(text: object) -> str:
    """Text over several lines where none but the first begins at the edge: what it quotes cannot
    pass for the tool's own line."""
    return re.sub(r"\n(?=\S)", "\n  ", show_text(text))


def show_json(text: str) -> str:
    """JSON as safe to look at as `show_text`, by escapes of JSON itself, so that it says the
    same."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(
        char if char == "\n" or _visible(char) == char else json.dumps(char)[1:-1] for char in text
    )


def write_any_text() -> None:
    """Have the standard streams write whatever they are given: what their encoding lacks in plainer
    characters or as escapes."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """As an error handler of an encoding."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(
        PLAINER.get(char) or char.encode("ascii", "backslashreplace").decode() for char in lacking
    ), error.end


def _visible(char: str) -> str:
    if char in JOINERS or unicodedata.category(char) not in HIDDEN:
        return char
    return (
        char.encode("unicode_escape").decode("ascii")
        if not "\ud800" <= char <= "\udfff"
        else f"\\u{ord(char):04x}"
    )
