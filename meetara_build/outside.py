"""Text and JSON from outside: data, logs, agents, other programs' files. Read without a crash, shown without a trick."""

import errno
import json
import shlex
import stat
import unicodedata
from pathlib import Path
from typing import Any

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of what prints nothing, moves the cursor or turns the direction of a line."""
JOINERS = "\u200c\u200d"
"""Format characters that words of Persian and of Indian scripts, and emoji, are written with."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or it cannot be held: not UTF-8, nested too deep, a number of thousands of digits.
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
    """A command line as a shell takes it: words with spaces, quotes or braces in them are quoted."""
    return shlex.join(map(str, words))


def show_line(text: object) -> str:
    """Text as one line of a message or a table: what would break the line, or cannot be seen, is written as an escape."""
    return "".join(_visible(char) for char in str(text))


def show_text(text: object) -> str:
    """Text over several lines: line ends and tabs stay, whatever else cannot be seen is written as an escape."""
    return "".join(char if char in "\n\t" else _visible(char) for char in str(text))


def _visible(char: str) -> str:
    if char in JOINERS or unicodedata.category(char) not in HIDDEN:
        return char
    return char.encode("unicode_escape").decode("ascii") if not "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"
