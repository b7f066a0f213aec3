"""CSV and TSV files: a bad record is a fault, and reading goes on after it."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from meetara_build.errors import DataError
from meetara_build.outside import show_line
from meetara_build.stages.dataset.records import Fault, Row
from meetara_build.stages.dataset.text_files import bad_byte, excerpt, read_lines

MAX_FIELD = 16 * 1024 * 1024  # characters of one cell
MAX_LINES = 5_000  # physical lines of one record; more means a quote that was never closed
SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's own first line, which is no header
QUOTED = re.compile(r'"(?:[^"]|"")*"')
TABBED = (".tsv", ".tab")


@dataclass(frozen=True)
class Table:
    """A file's lines and how to read them; ``literal``: a quote is a character like any other, and
    a line is a record."""

    lines: list[str]
    start: int
    header: list[str]
    delimiter: str
    literal: bool


@dataclass(frozen=True)
class Found:
    """One record: the place of its first line, how many lines it takes, its cells, and what is
    wrong with it."""

    at: int
    used: int
    cells: list[str]
    problem: str = ""


def read_csv(path: Path, name: str) -> Iterator[Row | Fault]:
    """The records of a CSV file with a header; a record's line is the one it starts on.

    The delimiter is the one that Excel's ``sep=`` line names, a tab in a .tsv file, else the one of
    comma, semicolon and tab that the header uses most. Between tabs, quotes are text, unless the
    file shows that they are not. After a record that cannot be read (a quote that is never closed,
    say) reading resumes on the next line, so that one bad quote costs one record.
    """
    lines = [line for _, line in read_lines(path, name)]
    with _long_fields():
        table = _open_table(lines, name)
        for found in _without_swallowed(table, list(_records(table))):
            number = found.at + 1
            if found.problem:
                yield Fault(name, number, None, found.problem, _show(lines[found.at]))
            elif found.cells:
                yield _row(table, found.cells, name, number)


def _open_table(lines: list[str], name: str) -> Table:
    start, delimiter = _first(lines, 0), ""
    if start < len(lines) and (stated := SEPARATOR.fullmatch(lines[start].strip("\r\n"))):
        start, delimiter = _first(lines, start + 1), stated[1]
    if start == len(lines):
        return Table(lines, start, [], ",", False)
    inner = PurePath(name.casefold().removesuffix(".gz")).suffix
    delimiter = delimiter or ("\t" if inner in TABBED else max(",;\t", key=lines[start].count))
    found = _read(lines, start, delimiter, literal=False)
    if found.problem:
        found = _read(lines, start, delimiter, literal=delimiter == "\t")
    if found.problem:
        raise DataError(f"{name}: line {start + 1}: the header {found.problem}: mend this line")
    header = [cell.strip() for cell in found.cells]
    if bad_byte("".join(header)):
        raise DataError(
            f"{name}: line {start + 1}: the header is not UTF-8: save the file as UTF-8"
        )
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise DataError(
            f"{name}: line {start + 1}: two columns are called '{show_line(twice[0])}': rename one "
            "of them"
        )
    table = Table(lines, start + found.used, header, delimiter, literal=False)
    if delimiter == "\t" and not lines[start].startswith('"') and _keeps_quotes(table):
        return replace(table, literal=True)
    return table


def _first(lines: Sequence[str], start: int) -> int:
    return next((at for at in range(start, len(lines)) if lines[at].strip()), len(lines))


def _keeps_quotes(table: Table) -> bool:
    """Are the quotes of a file with tabs text? Not where fewer records are bad if they are CSV's;
    nor, where no line is bad, if each quote is written as CSV writes it and one is doubled."""
    lines = [line.rstrip("\r\n") for line in table.lines[table.start :] if line.strip("\r\n")]
    width = len(table.header)
    bad = sum(len(line.split("\t")) != width for line in lines)
    if bad:
        return bad <= sum(
            bool(found.problem) or len(found.cells) != width for found in _records(table)
        )
    cells = [cell for line in lines if '"' in line for cell in line.split("\t") if '"' in cell]
    return not (
        all(QUOTED.fullmatch(cell) for cell in cells) and any('""' in cell[1:-1] for cell in cells)
    )


def _records(table: Table, alone: frozenset[int] = frozenset()) -> Iterator[Found]:
    """The records of a table; of those that begin at ``alone``, the first line only, as bad."""
    at = table.start
    while at < len(table.lines):
        found = _read(table.lines, at, table.delimiter, literal=table.literal)
        if at in alone:
            last = at + found.used
            problem = f'opens a quote that closes on line {last}, over lines that are records: write " as ""'
            found = Found(at, 1, [], problem)
        at += found.used
        if found.cells or found.problem:
            yield found


def _without_swallowed(table: Table, found: list[Found]) -> Iterator[Found]:
    """The records, but for those that a stray quote has made of several: where a file has cells
    over many lines, and each of these lines could be a record itself."""
    spanning = [one for one in found if one.used > 1]
    if not spanning or not all(_looks_swallowed(table, one) for one in spanning):
        return iter(found)
    return _records(table, frozenset(one.at for one in spanning))


def _looks_swallowed(table: Table, found: Found) -> bool:
    """Texts have a space after a comma; delimiters have none."""
    lines = [line.rstrip("\r\n") for line in table.lines[found.at : found.at + found.used]]
    cells = [line.split(table.delimiter) for line in lines]
    return all(
        len(line) == len(table.header) > 1 and not any(cell.startswith(" ") for cell in line[1:])
        for line in cells
    )


def _read(lines: list[str], start: int, delimiter: str, *, literal: bool) -> Found:
    """The record that starts on a line."""
    if literal:
        line = lines[start].rstrip("\r\n")
        return Found(start, 1, line.split(delimiter) if line else [])
    ahead = (lines[at] for at in range(start, min(start + MAX_LINES, len(lines))))
    reader = csv.reader(ahead, delimiter=delimiter, strict=True)
    try:
        cells = next(reader)
        return Found(start, reader.line_num, cells)
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        return Found(
            start,
            1,
            [],
            "opens a quote that is never closed" if unclosed else f"is not CSV: {error}",
        )


def _row(table: Table, cells: list[str], name: str, number: int) -> Row | Fault:
    header = table.header
    if len(cells) != len(header):
        named = {",": "comma", ";": "semicolon", "\t": "tab"}.get(table.delimiter, "delimiter")
        outside = "" if table.literal else " outside quotes"
        hint = f" (a {named}{outside}?)" if len(cells) > len(header) else ""
        problem = f"has {len(cells)} cells where the header has {len(header)}{hint}"
        return Fault(name, number, None, problem, _show(table.delimiter.join(cells)))
    for column, cell in zip(header, cells, strict=True):
        if broken := bad_byte(cell):
            return Fault(
                name, number, column, f"is not UTF-8 (byte 0x{broken[1]:02x})", _show(cell)
            )
    return Row(name, number, dict(zip(header, cells, strict=True)))


def _show(text: str) -> str:
    return excerpt(text.encode("utf-8", "replace").decode())


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module's limit on a cell, 131,072 characters, is process-wide: raise it only while we
    read."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
