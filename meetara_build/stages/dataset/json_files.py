"""JSON: an object a line, or one document (a list of objects, or an object that holds one), on one
line or over many."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import parse_json, show_line
from meetara_build.stages.dataset.columns import recognise
from meetara_build.stages.dataset.records import Fault, Row
from meetara_build.stages.dataset.text_files import bad_byte, excerpt, kind, read_lines

SPACE = re.compile(r"[ \t\n\r]*")
HOLDERS = ("data", "records", "rows", "examples", "items", "train")
"""Keys that hold the records of a document, whatever else stands beside them."""


@dataclass(frozen=True)
class Item:
    """A JSON value and where it stands; ``twice`` is a key that one of its objects has two
    times."""

    start: int
    end: int
    value: Any
    twice: str | None


def read_json(path: Path, name: str) -> Iterator[Row | Fault]:
    """The objects of a JSON file; blank lines are skipped.

    A record's line is the one it begins on; in a document in which several begin on one line, it is
    the record's number.

    Raises:
        DataError: the file is one document that is not JSON as a whole, or that holds several lists
            of records.
    """
    lines = ((number, line) for number, line in read_lines(path, name) if line.strip())
    first, second = next(lines, None), next(lines, None)
    if first is None:
        return
    if _begins_document(first[1].strip(), second and second[1].strip()):
        yield from _read_document(path, name)
        return
    scan = Scanner()
    for number, line in chain([first], [second] if second else [], lines):
        yield _read_line(scan, line, name, number)


class Scanner:
    """Reads JSON values one by one out of a text."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.at = 0
        self._twice: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_float=_number)

    def begin(self, text: str) -> None:
        """Go to the beginning of another text."""
        self.text, self.at = text, 0

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at : self.at + 1]

    def take(self, among: str) -> str:
        """Read one of these characters.

        Raises:
            JSONDecodeError: another one stands there.
        """
        found = self.peek()
        if not found or found not in among:
            raise json.JSONDecodeError(
                f"Expecting {' or '.join(map(repr, among))}", self.text, self.at
            )
        self.at += 1
        return found

    def read_value(self) -> Item:
        """The next value.

        Raises:
            JSONDecodeError: it is not JSON, or it cannot be held: nested too deep, a number of
                thousands of digits.
        """
        self.peek()
        self._twice = None
        start = self.at
        try:
            value, self.at = self._decoder.raw_decode(self.text, start)
        except json.JSONDecodeError:
            raise
        except (RecursionError, ValueError):
            raise json.JSONDecodeError("a value that cannot be read", self.text, start) from None
        return Item(start, self.at, value, self._twice)

    def read_list(self) -> list[Item]:
        """The values of the list that begins here."""
        self.take("[")
        found: list[Item] = []
        if self.peek() == "]":
            self.take("]")
            return found
        while True:
            found.append(self.read_value())
            if self.take(",]") == "]":
                return found

    def read_members(self) -> list[tuple[str, Item | list[Item]]]:
        """The members of the object that begins here; lists as their items."""
        self.take("{")
        found: list[tuple[str, Item | list[Item]]] = []
        if self.peek() == "}":
            self.take("}")
            return found
        while True:
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self.text, self.at)
            key = str(self.read_value().value)
            self.take(":")
            found.append((key, self.read_list() if self.peek() == "[" else self.read_value()))
            if self.take(",}") == "}":
                return found

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs) and self._twice is None:
            keys = [key for key, _ in pairs]
            self._twice = next(key for key in keys if keys.count(key) > 1)
        return found


def _number(text: str) -> Decimal | float:
    """A number with a point, as it is written: an answer of 3.10 must not become 3.1."""
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent without end
        return float(text)


def _begins_document(first: str, second: str | None) -> bool:
    """By the first two lines that are not blank: do they belong to one value?"""
    if second is None:
        return first[0] in "[{"
    try:
        parse_json(first)
    except ValueError:
        # A broken line of an object a line is followed by another object, not by a key or a
        # bracket.
        return first[0] == "[" or (first[0] == "{" and (first[-1] == "[" or second[0] in '"}['))
    return False


def _read_line(scan: Scanner, line: str, name: str, number: int) -> Row | Fault:
    """The object of one line."""

    def fault(problem: str, column: str | None = None) -> Fault:
        return Fault(
            name, number, column, problem, excerpt(line.encode("utf-8", "replace").decode())
        )

    if broken := bad_byte(line):
        return fault(f"is not UTF-8 (byte {broken[0] + 1} of the line)")
    if "\0" in line:
        return fault("holds a NUL byte")
    scan.begin(line)
    try:
        item = scan.read_value()
        if scan.peek():
            raise json.JSONDecodeError("Extra data", line, scan.at)
    except json.JSONDecodeError as error:
        if error.msg == "a value that cannot be read":
            return fault("is JSON that cannot be read")
        return fault(f"is not JSON: {error.msg} at character {error.pos + 1}")
    if item.twice is not None:
        return fault(f"the key '{show_line(item.twice)}' stands twice", item.twice)
    if not isinstance(item.value, dict):
        return fault(f"is {kind(item.value)}, not an object")
    return Row(name, number, item.value)


def _read_document(path: Path, name: str) -> Iterator[Row | Fault]:
    lines = [line for _, line in read_lines(path, name)]
    text = "".join(lines)
    try:
        items = _records_of(Scanner(text), name)
    except json.JSONDecodeError as error:
        if sum(bool(line.strip()) for line in lines) == 1 and text.lstrip().startswith("{"):
            yield _read_line(Scanner(), text, name, 1)
            return
        raise DataError(
            f"{name}: line {error.lineno}: is not JSON: {error.msg} at character {error.colno}: "
            "mend it there (one JSON document is read whole; of an object a line, only the bad "
            "lines are left out)"
        ) from None
    for number, item in zip(_numbers(text, items), items, strict=True):
        yield _record(text, item, name, number)


def _records_of(scan: Scanner, name: str) -> list[Item]:
    """The records of a document: the items of its list, else its objects."""
    if scan.peek() == "[":
        items = scan.read_list()
        if scan.peek():
            raise json.JSONDecodeError("Extra data", scan.text, scan.at)
        return items
    start = scan.at
    members = scan.read_members()
    if scan.peek():  # objects over many lines, one after another
        scan.at = start
        items = []
        while scan.peek():
            items.append(scan.read_value())
        return items
    held = _find_list(members, name)
    if held is not None:
        return held
    scan.at = start
    return [scan.read_value()]


def _find_list(members: Sequence[tuple[str, Item | list[Item]]], name: str) -> list[Item] | None:
    """The list of records among an object's members; None where the object is a record itself."""
    keys = [key for key, _ in members]
    if {"prompt", "response"} <= set(recognise(keys)):
        return None
    lists = {
        key: found for key, found in members if isinstance(found, list) and _are_objects(found)
    }
    named = [key for key in lists if key.casefold() in HOLDERS]
    filled = [key for key in lists if lists[key]]
    if any({"role", "from"} & set(item.value) for key in filled for item in lists[key]):
        return None  # a conversation
    if lists and len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{name}: the key '{show_line(twice)}' stands twice: rename one of them")
    if len(filled) > 1:
        several = ", ".join(f"'{show_line(key)}' ({len(lists[key])})" for key in filled)
        raise DataError(
            f"{name}: holds several lists of records: {several}: write the one you want to a file "
            f"of its own, e.g. `jq -c '.{show_line((named or filled)[0])}[]' {shlex.quote(name)} > "
            "records.jsonl`"
        )
    if filled or named:
        return lists[(filled or named)[0]]
    return None


def _are_objects(items: Sequence[Item]) -> bool:
    return all(isinstance(item.value, dict) for item in items)


def _numbers(text: str, items: Sequence[Item]) -> list[int]:
    """The line on which each item begins, or each item's number where two begin on one line."""
    lines, line, at = [], 1, 0
    for item in items:
        line += text.count("\n", at, item.start)
        at = item.start
        lines.append(line)
    return lines if len(set(lines)) == len(lines) else list(range(1, len(items) + 1))


def _record(text: str, item: Item, name: str, number: int) -> Row | Fault:
    written = text[item.start : item.end]
    if broken := bad_byte(written):
        column, problem = None, f"is not UTF-8 (byte 0x{broken[1]:02x})"
    elif item.twice is not None:
        column, problem = item.twice, f"the key '{show_line(item.twice)}' stands twice"
    elif not isinstance(item.value, dict):
        column, problem = None, f"is {kind(item.value)}, not an object"
    else:
        return Row(name, number, item.value)
    return Fault(
        name, number, column, problem, excerpt(written[:200].encode("utf-8", "replace").decode())
    )
