"""Guess how to read a data file, for ``meetara-build add-domain NAME --from FILE``."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset.columns import (
    CHOSEN,
    find_missing,
    recognise,
    show_columns,
    value_at,
)
from meetara_build.stages.dataset.shape import LABELS
from meetara_build.stages.dataset.sources import Reading, find_format, read_source
from meetara_build.stages.dataset.text_files import advise_encoding
from meetara_build.stages.dataset.turns import turns_in
from meetara_build.stages.recipes.preparation import SourceRecipe

LOOK_AT = 1000  # records
STEPS = 6  # into lists and objects
LONG = 10  # words of a cell that an answer may depend on
SETTLE = "say which with `--prompt COLUMN --response COLUMN`"
LINK = re.compile(r"(https?://|www\.)\S+|[^\s@]+@[^\s@]+\.\w+", re.IGNORECASE)
NUMBER = re.compile(
    r"[-+]?[\d.,:/-]+"
)  # dates too; with a currency, it is an amount, and amounts are answers
KEYS = re.compile(
    r"(^|_)(id|uuid|guid|url|uri|link|href|hash|date|time|timestamp|created|updated|index|role|speaker|author)$",
    re.IGNORECASE,
)
WORSE = re.compile(
    r"(^|[._])(rejected|non_preferred|dispreferred|incorrect|wrong|worse|negative|distractor)s?\d*([._]|$)",
    re.IGNORECASE,
)
"""Columns of the answers that a set of preferences, or of tests, calls the worse ones."""
EXTRA = ("input", "system", "topic", "language")

# Names that say enough to guess by, though not enough to go by unasked.
HINTS = {
    "prompt": ("description", "text", "sentence", "title", "utterance", "statement"),
    "response": ("command", "code", "sql", "summary", "translation", "label", "intent", "class"),
}


@dataclass(frozen=True)
class Guess:
    """How to read a file: keys of a ``sources:`` entry (``format``, ``columns``), and what a person
    should know of them."""

    source: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class Look:
    """What a column holds: mean words of a cell, share of cells that differ, share that are
    filled."""

    column: str
    words: float
    distinct: float
    filled: float

    @property
    def is_label(self) -> bool:
        """A few values again and again: `card_arrival`, `osx`."""
        return self.distinct <= 0.5 and self.words < 5


def guess(path: Path, given: Mapping[str, str] | None = None, form: str | None = None) -> Guess:
    """``{"format": "csv", "columns": {"prompt": "text", "response": "category"}}`` of a file, and
    notes.

    ``given`` columns and a given ``form`` are taken as they are; with both prompt and response, or
    messages, only what may stand beside them is looked for. Else by common names first, then by
    content: of two columns with free text, the one with longer text is the response; a column of
    labels is the response where only one column holds free text. Links, numbers, dates and ids
    never are, unless their column is called an answer. Texts inside lists and objects are reached
    by a dotted path: ``instances.0.output``, where no list holds more than that one.

    Raises:
        DataError: the file cannot be read, a given column is not there, or nothing in it is surely
            a question and its answer.
    """
    kind = form or find_format(path, path.name)
    if kind is None:
        raise DataError(
            f"{path.name}: cannot tell its format: give it an ending that says it (.jsonl, .json, "
            ".csv, .tsv, .parquet), or say it with `--format`"
        )
    reading = _read(path, kind)
    given = dict(given or {})
    if missing := find_missing(given, reading.columns):
        raise DataError(f"{path.name}: {missing[1]}: name one of these")
    values = [row.values for row in reading.rows]
    if "messages" in given or {"prompt", "response"} <= set(given):
        chosen = given
    else:
        chosen = _choose(path.name, reading, given, values)
        _refuse_unreached(path.name, chosen, values)
    beside = {"input"} if "messages" in chosen else set()
    extra = {
        field: column for field, column in recognise(reading.columns).items() if field in EXTRA
    }
    for field, column in extra.items():
        if field not in {*chosen, *beside} and column not in chosen.values():
            chosen = {**chosen, field: column}
    return Guess({"format": kind, "columns": chosen}, _notes(chosen, reading.columns, values))


def _read(path: Path, kind: str) -> Reading:
    reading = read_source(SourceRecipe(name=path.name, format=kind, limit=LOOK_AT), path)
    if len(reading.rows) < len(reading.faults):
        first = reading.faults[0]
        advice = (
            f"most of it cannot be read ({len(reading.faults)} of {reading.read} records); is it "
            f"{kind}?"
        )
        if "is not UTF-8" in first.problem:
            advice = (
                "it was probably saved by a Windows program: convert it, e.g. "
                f"{advise_encoding(path.name)}"
            )
        raise DataError(f"{path.name}: line {first.line} {first.problem}: {advice}")
    return reading


def _choose(
    name: str, reading: Reading, given: Mapping[str, str], values: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """The columns of the question and the answer, or of the conversation, and what stands inside
    lists beside them."""
    if reading.read == 1:
        raise DataError(
            f"{name}: holds one record, with {show_columns(reading.columns)}: write one record a line, "
            "or a list of records"
        )
    columns = [column for column in reading.columns if not WORSE.search(column)]
    fields = recognise(columns)
    if not given and "messages" in fields and _holds_turns(values, fields["messages"]):
        answer = fields.get("response", "")
        return {
            "messages": fields["messages"],
            **({"response": answer} if answer.casefold() in CHOSEN else {}),
        }
    paths = _paths(values, columns)
    looks = [look for look in (_look(values, path) for path in paths) if look]
    named = _find_by_name(recognise(_last_names(paths)), paths, {look.column for look in looks})
    for field in ("prompt", "response"):
        if field in fields and (
            _holds_turns(values, fields[field]) or _holds_numbers(values, field, fields[field])
        ):
            named[field] = fields[field]
    pair = _pair({**named, **given}, looks)
    if pair is None:
        texts = ", ".join(
            f"'{look.column}' (about {look.words:.0f} words)" for look in looks if look.words >= 2
        )
        raise DataError(
            f"{name}: cannot tell which columns hold the question and the answer: there are "
            f"{show_columns(reading.columns)}{f'; texts stand in {texts}' if texts else ''}: {SETTLE}"
        )
    taken = [*pair, *given]
    inside = {
        field: path
        for field, path in named.items()
        if field in EXTRA and field not in taken and "." in path
    }
    return {
        **pair,
        **{field: path for field, path in inside.items() if path not in pair.values()},
        **given,
    }


def _pair(named: Mapping[str, str], looks: Sequence[Look]) -> dict[str, str] | None:
    """The prompt's and the response's columns: both by name, one by name and one by content, or
    both by content."""
    if {"prompt", "response"} <= set(named):
        return {"prompt": named["prompt"], "response": named["response"]}
    taken = {column for field, column in named.items() if field in ("language", "system")}
    looks = [
        look
        for look in looks
        if look.column not in taken and look.filled > 0.5 and look.distinct > 0
    ]
    free = [look for look in looks if not look.is_label and look.words >= 1.5]
    labels = [look for look in looks if look.is_label]
    for known, other in (("prompt", "response"), ("response", "prompt")):
        if known in named:
            best = _find_other(named, named[known], free, labels, looks)
            return {known: named[known], other: best.column} if best else None
    hinted = {field: _find_hinted(field, [*free, *labels]) for field in HINTS}
    if hinted["prompt"] and hinted["response"]:
        return {field: str(column) for field, column in hinted.items()}
    if len(free) == 2:
        longest = sorted(free, key=lambda look: -look.words)
        # Of two columns with texts about as long, the question usually stands first.
        if longest[0].words < 1.5 * longest[1].words:
            longest = sorted(longest, key=free.index, reverse=True)
        return {"prompt": longest[1].column, "response": longest[0].column}
    if len(free) == 1 and labels and free[0].words >= 3:
        return {
            "prompt": free[0].column,
            "response": max(labels, key=lambda look: look.distinct).column,
        }
    return None


def _find_other(
    named: Mapping[str, str],
    known: str,
    free: Sequence[Look],
    labels: Sequence[Look],
    looks: Sequence[Look],
) -> Look | None:
    """The column that goes with a known one: the longest text, a label, or an amount; None where
    two would do as well."""
    beside = {known, *(column for field, column in named.items() if field in EXTRA)}
    for among, without in ((free, beside), (labels, beside), (looks, beside), (labels, {known})):
        found = sorted(
            (look for look in among if look.column not in without), key=lambda look: -look.words
        )
        if found:
            return found[0] if len(found) == 1 or found[0].words >= 1.5 * found[1].words else None
    return None


def _find_hinted(field: str, looks: Sequence[Look]) -> str | None:
    by_name = {look.column.casefold(): look.column for look in looks}
    return next((by_name[name] for name in HINTS[field] if name in by_name), None)


def _look(values: Sequence[Mapping[str, object]], column: str) -> Look | None:
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
    words = sum(len(text.split()) if " " in text else 1 + len(text) // 12 for text in texts) / len(
        texts
    )
    return Look(column, words, len(set(texts)) / len(texts), len(texts) / len(values))


def _cell(row: Mapping[str, object], column: str) -> object:
    try:
        return value_at(row, column)
    except KeyError:
        return None


def _paths(values: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[str]:
    """The columns, and the dotted paths of texts inside them."""
    found: dict[str, None] = {}
    for row in values[:50]:
        for column in columns:
            _walk(row.get(column), column, STEPS, found)
    return list(found)


def _walk(value: object, path: str, steps: int, found: dict[str, None]) -> None:
    if isinstance(value, str):
        found[path] = None
    elif isinstance(value, list) and value and steps:
        _walk(value[0], f"{path}.0", steps - 1, found)
    elif isinstance(value, Mapping) and steps:
        for key, inner in value.items():
            _walk(inner, f"{path}.{key}", steps - 1, found)


def _last_names(paths: Sequence[str]) -> list[str]:
    return [path.rsplit(".", 1)[-1] for path in paths]


def _find_by_name(
    names: Mapping[str, str], paths: Sequence[str], usable: set[str]
) -> dict[str, str]:
    """Field → path for the fields whose path ends with the recognised name; the shallowest path of
    that name."""
    found = {}
    for field, name in names.items():
        of_name = [path for path in paths if path.rsplit(".", 1)[-1] == name]
        if field in ("prompt", "response"):
            of_name = [path for path in of_name if path in usable]
        if of_name:
            found[field] = min(of_name, key=lambda path: path.count("."))
    return found


def _holds_turns(values: Sequence[Mapping[str, object]], column: str) -> bool:
    return any(turns_in(row.get(column)) for row in values)


def _holds_numbers(values: Sequence[Mapping[str, object]], field: str, column: str) -> bool:
    """Is a column that is called an answer one of numbers or amounts? Its name says that they are
    the answers."""
    cells = [row.get(column) for row in values]
    filled = [cell for cell in cells if cell is not None and cell != ""]
    numbers = [
        cell
        for cell in filled
        if isinstance(cell, int | float | Decimal | str) and not isinstance(cell, bool)
    ]
    return field == "response" and len(numbers) > 0.5 * len(values)


def _find_unreached(column: str, values: Sequence[Mapping[str, object]]) -> tuple[str, int] | None:
    """A list of which a dotted path takes one entry of several: its path, and the most that it
    holds."""
    steps = column.split(".")
    for at in range(1, len(steps)):
        if steps[at].isdigit():
            path = ".".join(steps[:at])
            held = [_cell(row, path) for row in values if column not in row]
            most = max((len(cell) for cell in held if isinstance(cell, list)), default=0)
            if most > 1:
                return path, most
    return None


def _refuse_unreached(
    name: str, chosen: Mapping[str, str], values: Sequence[Mapping[str, object]]
) -> None:
    """A guess that takes one entry of many would leave most of the file out."""
    for field, column in chosen.items():
        if found := _find_unreached(column, values):
            path, most = found
            raise DataError(
                f"{name}: '{path}' holds up to {most} entries a record, of which '{column}' "
                f"({field}) is one: write a record for each, e.g. `jq -c '{_flattening(column)}' "
                f"{shlex.quote(name)} > records.jsonl`; if one of them is enough, {SETTLE}"
            )


def _flattening(column: str) -> str:
    """jq's program that makes a record of each entry of the lists on a path, together with what
    stands around them."""
    steps = column.split(".")
    lists, start = [], 0
    for at, step in enumerate(steps):
        if step.isdigit() and at > start:
            lists.append(
                "".join(f".{key}" if key.isidentifier() else f'."{key}"' for key in steps[start:at])
            )
            start = at + 1
    merged = " | ".join(f". + {one}[]" for one in lists)
    return f'.. | objects | select(has("{steps[0]}")) | {merged} | del({", ".join(lists)})'


def _notes(
    chosen: Mapping[str, str], columns: Sequence[str], values: Sequence[Mapping[str, object]]
) -> list[str]:
    """What of the file will not be learnt."""
    unused = (
        "is not used: where answers depend on it, map it to `input` under `columns:` in the "
        "domain's file"
    )
    notes = []
    for field, column in chosen.items():
        if found := _find_unreached(column, values):
            notes.append(
                f"'{found[0]}' holds up to {found[1]} entries a record: {field} is only one of "
                f"them, '{column}'"
            )
    used = {column.split(".")[0] for column in chosen.values()} | set(chosen.values())
    for column in columns:
        if column in used:
            continue
        if WORSE.search(column):
            notes.append(
                f"column '{column}' is not learnt: it holds the answers that were found worse"
            )
        elif column.casefold() in LABELS and any(
            isinstance(row.get(column), bool) for row in values
        ):
            notes.append(
                f"records whose '{column}' is false are left out: their answers are labelled as bad"
            )
        elif (look := _look(values, column)) and look.words >= LONG:
            notes.append(f"column '{column}' (texts of about {look.words:.0f} words) {unused}")
        elif any(_are_choices(row.get(column)) for row in values):
            notes.append(f"column '{column}' (lists of texts) {unused}")
    return notes


def _are_choices(cell: object) -> bool:
    return isinstance(cell, list) and len(cell) > 1 and all(isinstance(one, str) for one in cell)
