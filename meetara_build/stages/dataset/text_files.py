"""JSONL and CSV files, read line by line: a bad line is a fault, and reading goes on after it."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import parse_json
from meetara_build.stages.dataset.records import Fault, Row

BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
MAX_FIELD = 16 * 1024 * 1024  # characters of one CSV cell
MAX_LINES = 5_000  # physical lines of one CSV record; more means a quote that was never closed


def read_jsonl(path: Path, name: str) -> Iterator[Row | Fault]:
    """The objects of a JSONL file, one a line; blank lines are skipped."""
    for number, line in _lines(path, name):
        text = _decode(line)
        if isinstance(text, int):
            yield Fault(name, number, None, f"is not UTF-8 (byte {text + 1} of the line)", _excerpt(line))
        elif "\0" in text:
            yield Fault(name, number, None, "holds a NUL byte", _excerpt(line))
        elif text.strip():
            yield _object(text, name, number)


def read_csv(path: Path, name: str) -> Iterator[Row | Fault]:
    """The records of a CSV file with a header; a record's line is the one it starts on.

    The delimiter is the one of comma, semicolon and tab that the header uses most. After a record that cannot be read
    (a quote that is never closed, say) reading resumes on the next line, so that one bad quote costs one record.
    """
    # surrogateescape keeps a byte that is not UTF-8 recognisable within its cell, instead of stopping the file.
    lines = [line.decode("utf-8", "surrogateescape") for _, line in _lines(path, name)]
    with _long_fields():
        at, header, delimiter = _header(lines, name)
        while at < len(lines):
            cells, used, problem = _record(lines, at, delimiter)
            number = at + 1
            at += used
            if problem:
                yield Fault(name, number, None, problem, _excerpt(lines[number - 1].encode("utf-8", "replace")))
            elif cells:
                yield _row(header, cells, name, number)


def csv_columns(path: Path, name: str) -> list[str]:
    """The names in a CSV file's header."""
    lines = [line.decode("utf-8", "surrogateescape") for _, line in _lines(path, name)]
    return _header(lines, name)[1]


def _lines(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(UTF16):
                raise DataError(
                    f"{name}: line 1: the file is UTF-16, not UTF-8: convert it, "
                    f"e.g. `iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}`"
                )
            yield number, line.removeprefix(BOM) if number == 1 else line


def _decode(line: bytes) -> str | int:
    """The text, or the position of the first byte that is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start


def _object(text: str, name: str, number: int) -> Row | Fault:
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at character {error.pos + 1}"
        return Fault(name, number, None, problem, _excerpt(text.encode("utf-8", "replace")))
    except (ValueError, RecursionError):  # integers of thousands of digits; brackets nested without end
        return Fault(name, number, None, "is JSON that cannot be read", _excerpt(text.encode("utf-8", "replace")))
    if not isinstance(value, dict):
        return Fault(name, number, None, f"is {kind(value)}, not an object", _excerpt(text.encode("utf-8", "replace")))
    return Row(name, number, value)


def _header(lines: list[str], name: str) -> tuple[int, list[str], str]:
    start = next((at for at, line in enumerate(lines) if line.strip()), None)
    if start is None:
        return len(lines), [], ","
    delimiter = max(",;\t", key=lines[start].count)
    cells, used, problem = _record(lines, start, delimiter)
    if problem:
        raise DataError(f"{name}: line {start + 1}: the header {problem}: mend the first line")
    header = [cell.strip() for cell in cells]
    if any("\udc80" <= character <= "\udcff" for character in "".join(header)):
        raise DataError(f"{name}: line {start + 1}: the header is not UTF-8: save the file as UTF-8")
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise DataError(f"{name}: line {start + 1}: two columns are called '{twice[0]}': rename one of them")
    return start + used, header, delimiter


def _record(lines: list[str], start: int, delimiter: str) -> tuple[list[str], int, str]:
    """The record that starts on a line: its cells, how many lines it takes, and what is wrong with it."""
    ahead = (lines[at] for at in range(start, min(start + MAX_LINES, len(lines))))
    reader = csv.reader(ahead, delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num, ""
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        return [], 1, "opens a quote that is never closed" if unclosed else f"is not CSV: {error}"


def _row(header: list[str], cells: list[str], name: str, number: int) -> Row | Fault:
    if len(cells) != len(header):
        hint = " (a comma outside quotes?)" if len(cells) > len(header) else ""
        return Fault(
            name,
            number,
            None,
            f"has {len(cells)} cells where the header has {len(header)}{hint}",
            _excerpt(",".join(cells).encode("utf-8", "replace")),
        )
    for column, cell in zip(header, cells, strict=True):
        broken = next((ord(character) - 0xDC00 for character in cell if "\udc80" <= character <= "\udcff"), None)
        if broken is not None:
            return Fault(
                name,
                number,
                column,
                f"is not UTF-8 (byte 0x{broken:02x})",
                _excerpt(cell.encode("utf-8", "replace")),
            )
    return Row(name, number, dict(zip(header, cells, strict=True)))


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module's limit on a cell, 131,072 characters, is process-wide: raise it only while we read."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _excerpt(raw: bytes, length: int = 40) -> str:
    text = raw.decode("utf-8", "replace").strip()
    return excerpt(text, length)


def excerpt(value: Any, length: int = 40) -> str:
    """The beginning of a value, on one line and printable."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = io.StringIO()
    for character in " ".join(text[: 4 * length].split()):
        shown.write(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}")
    line = shown.getvalue()
    return line if len(line) <= length else line[: length - 1] + "…"


def kind(value: Any) -> str:
    """What a JSON value is, in plain words."""
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")
