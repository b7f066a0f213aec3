"""Guess how to read a data file, for ``meetara-build add-domain NAME --from FILE``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset.columns import listed, recognise, value_at
from meetara_build.stages.dataset.sources import format_of, read_source

LOOK_AT = 1000  # records
LINK = re.compile(r"(https?://|www\.)\S+|[^\s@]+@[^\s@]+\.\w+", re.IGNORECASE)
NUMBER = re.compile(r"[-+$€£]?[\d.,:/-]+%?")
KEYS = re.compile(
    r"(^|_)(id|uuid|guid|url|uri|link|href|hash|date|time|timestamp|created|updated|index)$", re.IGNORECASE
)

# Names that say enough to guess by, though not enough to go by unasked.
HINTS = {
    "prompt": ("description", "text", "sentence", "title", "utterance", "statement"),
    "response": ("command", "code", "sql", "summary", "translation", "label", "intent", "class"),
}


@dataclass(frozen=True)
class Guess:
    """How to read a file: keys of a ``sources:`` entry (``format``, ``columns``), and what a person should know of them."""

    source: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class Look:
    """What a column holds: mean words of a cell, share of cells that differ, share that are filled."""

    column: str
    words: float
    distinct: float
    filled: float

    @property
    def is_label(self) -> bool:
        """A few values again and again: `card_arrival`, `osx`."""
        return self.distinct <= 0.5 and self.words < 5


def guess(path: Path, given: Mapping[str, str] | None = None) -> Guess:
    """``{"format": "csv", "columns": {"prompt": "text", "response": "category"}}`` of a file, and notes.

    ``given`` columns are taken as they are; with both prompt and response, nothing is guessed.

    By common names first, then by content: of the columns with free text, the one with longer text is the response; a
    column of labels is the response where only one column holds free text. Links, numbers, dates and ids never are.
    Texts inside lists and objects are reached by a dotted path: ``instances.0.output``.

    Raises:
        DataError: the file cannot be read, or nothing in it can be a question and its answer.
    """
    kind = format_of(path, path.name)
    reading = read_source({"name": path.name, "format": kind, "limit": LOOK_AT, "split": "train"}, path)
    if not reading.rows:
        first = reading.faults[0]
        raise DataError(f"{path.name}: line {first.line} {first.problem}: no line can be read; is it {kind}?")
    if given and {"prompt", "response"} <= set(given):
        return Guess({"format": kind, "columns": dict(given)}, [])
    values = [row.values for row in islice(reading.rows, LOOK_AT)]
    paths = _paths(values, reading.columns)
    fields = recognise(reading.columns)
    if "messages" in fields and _holds_turns(values, fields["messages"]):
        return Guess({"format": kind, "columns": _only(fields, ("messages", "system", "topic", "language"))}, [])
    looks = [look for look in (_look(values, column) for column in paths) if look]
    named = _named(recognise(_last_names(paths)), paths, {look.column for look in looks})
    pair = _pair(named, looks)
    if pair is None:
        raise DataError(
            f"{path.name}: cannot tell which columns hold the question and the answer: there are "
            f"{listed(reading.columns)}: write `columns: {{prompt: …, response: …}}` in the domain's file"
        )
    extra = {field: column for field, column in named.items() if column not in pair.values() and field not in pair}
    chosen = {**pair, **_only(extra, ("input", "system", "topic", "language")), **(given or {})}
    return Guess({"format": kind, "columns": chosen}, [])


def _pair(named: Mapping[str, str], looks: Sequence[Look]) -> dict[str, str] | None:
    """The prompt's and the response's columns: both by name, one by name and one by content, or both by content."""
    if {"prompt", "response"} <= set(named):
        return {"prompt": named["prompt"], "response": named["response"]}
    free = [look for look in looks if not look.is_label]
    labels = [look for look in looks if look.is_label and look.filled > 0.5 and look.distinct > 0]
    taken = {column for field, column in named.items() if field in ("language", "system")}
    free = [look for look in free if look.column not in taken and look.filled > 0.5 and look.words >= 1.5]
    labels = [look for look in labels if look.column not in taken]
    for known, other in (("prompt", "response"), ("response", "prompt")):
        if known in named:
            rest = [look for look in [*free, *labels] if look.column != named[known]]
            best = max(rest, key=lambda look: look.words, default=None)
            return {known: named[known], other: best.column} if best else None
    hinted = {field: _hinted(field, [*free, *labels]) for field in HINTS}
    if hinted["prompt"] and hinted["response"]:
        return {field: str(column) for field, column in hinted.items()}
    if len(free) >= 2:
        longest = sorted(free, key=lambda look: -look.words)[:2]
        # Of two columns with texts about as long, the question usually stands first.
        if longest[0].words < 1.5 * longest[1].words:
            longest = sorted(longest, key=free.index, reverse=True)
        return {"prompt": longest[1].column, "response": longest[0].column}
    if free and labels and free[0].words >= 3:
        return {"prompt": free[0].column, "response": max(labels, key=lambda look: look.distinct).column}
    return None


def _hinted(field: str, looks: Sequence[Look]) -> str | None:
    by_name = {look.column.casefold(): look.column for look in looks}
    return next((by_name[name] for name in HINTS[field] if name in by_name), None)


def _look(values: Sequence[Mapping[str, Any]], column: str) -> Look | None:
    """What a column holds; None where that cannot be a question or an answer."""
    if KEYS.search(column):
        return None
    cells = [_cell(row, column) for row in values]
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if not texts or len(texts) < 0.5 * sum(cell is not None for cell in cells):
        return None
    odd = sum(bool(LINK.fullmatch(text) or NUMBER.fullmatch(text)) for text in texts)
    if odd > 0.5 * len(texts):
        return None
    words = sum(len(text.split()) if " " in text else 1 + len(text) // 12 for text in texts) / len(texts)
    return Look(column, words, len(set(texts)) / len(texts), len(texts) / len(values))


def _cell(row: Mapping[str, Any], column: str) -> Any:
    try:
        return value_at(row, column)
    except KeyError:
        return None


def _paths(values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The columns, and the dotted paths of texts inside them, down to three steps."""
    found: dict[str, None] = {}
    for row in values[:50]:
        for column in columns:
            _walk(row.get(column), column, 3, found)
    return list(found)


def _walk(value: Any, path: str, steps: int, found: dict[str, None]) -> None:
    if isinstance(value, str):
        found[path] = None
    elif isinstance(value, list) and value and steps:
        _walk(value[0], f"{path}.0", steps - 1, found)
    elif isinstance(value, Mapping) and steps:
        for key, inner in value.items():
            _walk(inner, f"{path}.{key}", steps - 1, found)


def _last_names(paths: Sequence[str]) -> list[str]:
    return [path.rsplit(".", 1)[-1] for path in paths]


def _named(names: Mapping[str, str], paths: Sequence[str], usable: set[str]) -> dict[str, str]:
    """Field → path for the fields whose path ends with the recognised name; the shallowest path of that name."""
    found = {}
    for field, name in names.items():
        of_name = [path for path in paths if path.rsplit(".", 1)[-1] == name]
        if field in ("prompt", "response"):
            of_name = [path for path in of_name if path in usable]
        if of_name:
            found[field] = min(of_name, key=lambda path: path.count("."))
    return found


def _only(fields: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
    return {field: fields[field] for field in wanted if field in fields}


def _holds_turns(values: Sequence[Mapping[str, Any]], column: str) -> bool:
    return any(isinstance(row.get(column), list) or str(row.get(column)).startswith("[") for row in values)
