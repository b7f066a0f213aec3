"""Everything that needs no tokenizer: read, shape, clean, check, drop duplicates, split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset import check, clean, columns, shape
from meetara_build.stages.dataset.duplicates import distinct
from meetara_build.stages.dataset.records import Drop, Fault, Message, Record, content_id
from meetara_build.stages.dataset.sources import Reading, read_source
from meetara_build.stages.dataset.split import split
from meetara_build.stages.dataset.text_files import advise_encoding
from meetara_build.stages.types import Inputs, Recipe


@dataclass(frozen=True)
class Prepared:
    """Records by side, in the order of the sources; what was dropped, what was bad, and how much was read of each.

    ``ids`` are of all good records, duplicates too.
    """

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    drops: list[Drop]
    faults: list[Fault]
    bad: int
    read: dict[str, int]
    ids: frozenset[str]


@dataclass(frozen=True)
class Checked:
    """The good records of one source, its faults, and the records that must not be learnt."""

    reading: Reading
    records: list[Record]
    faults: list[Fault]
    drops: list[Drop]

    @property
    def bad(self) -> int:
        """How many of its records have a fault."""
        return self.reading.read - len(self.records) - len(self.drops)


def prepare(recipe: Recipe, inputs: Inputs) -> Prepared:
    """The records of a domain by side, before any limit in tokens.

    Raises:
        DataError: a source cannot be read or lacks a column, more than ``max_bad_share`` of its records are bad
            (the message holds the table of faults), or too few records are left to split.
    """
    sources = _check_all(recipe, inputs)
    faults = [fault for source in sources for fault in source.faults]
    _refuse_bad(sources, recipe["max_bad_share"])
    records = [record for source in sources for record in source.records]
    found = distinct(records, recipe["near_duplicate"], recipe["near_group"])
    sides = split([record.id for record in found.records], found.groups, recipe["validation"], recipe["test"])
    by_side = {
        side: [record for record, of in zip(found.records, sides, strict=True) if of == side]
        for side in ("train", "validation", "test")
    }
    read: dict[str, int] = {}
    for source in sources:
        read[source.reading.name] = read.get(source.reading.name, 0) + source.reading.read
    bad = sum(source.bad for source in sources)
    ids = frozenset(record.id for record in records)
    drops = [*(drop for source in sources for drop in source.drops), *found.drops]
    return Prepared(**by_side, drops=drops, faults=faults, bad=bad, read=read, ids=ids)


def check_sources(recipe: Recipe, inputs: Inputs) -> list[Fault]:
    """Every fault in a domain's sources, however many there are.

    Raises:
        DataError: a source cannot be read at all or lacks a column.
    """
    return [fault for source in _check_all(recipe, inputs) for fault in source.faults]


def _check_all(recipe: Recipe, inputs: Inputs) -> list[Checked]:
    return [_check(source, inputs.get(f"source_{number}"), recipe) for number, source in enumerate(recipe["sources"])]


def _check(source: Mapping[str, Any], path: Path | None, recipe: Recipe) -> Checked:
    reading = read_source(source, path)
    if not reading.rows:
        return Checked(reading, [], reading.faults, [])
    fields = columns.mapping(reading.name, source.get("columns"), reading.columns)
    faults = list(reading.faults)
    drafts, drops = [], []
    for row in reading.rows:
        drafted = shape.draft(row, fields)
        if isinstance(drafted, Fault):
            faults.append(drafted)
        elif isinstance(drafted, Drop):
            drops.append(drafted)
        else:
            drafts.append(replace(drafted, cells=[_mended(cell) for cell in drafted.cells]))
    bad = check.faults_of(drafts)
    faults += [fault for of_one in bad.values() for fault in of_one]
    records = [_record(draft, source, recipe) for at, draft in enumerate(drafts) if at not in bad]
    return Checked(reading, records, sorted(faults, key=lambda fault: fault.line), drops)


def _mended(cell: shape.Cell) -> shape.Cell:
    if isinstance(cell.content, str):
        return replace(cell, content=clean.mend(cell.content))
    return cell


def _record(draft: shape.Draft, source: Mapping[str, Any], recipe: Recipe) -> Record:
    messages = [message for message in shape.messages(draft.cells) if message["content"]]
    if messages[0]["role"] != "system" and recipe["system_prompt"]:
        messages.insert(0, {"role": "system", "content": recipe["system_prompt"]})
    languages = recipe["languages"]
    language = clean.language_of(
        _said_by(messages, "user"),
        _said_by(messages, "assistant"),
        draft.language,
        source.get("language") or (languages[0] if languages else "en"),
        languages,
    )
    topic = next((cell.content for cell in draft.cells if cell.role == "topic"), None)
    where = f"{draft.row.source}:{draft.row.line}"
    return Record(content_id(messages), messages, language, topic or None, where)


def _said_by(messages: Sequence[Message], role: str) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] == role)


def _refuse_bad(sources: Sequence[Checked], allowed: float) -> None:
    """One error for all sources with too many bad records, with the faults of each."""
    for source in sources:
        if not source.records and not source.faults:
            reasons = ", ".join(sorted({drop.reason for drop in source.drops}))
            raise DataError(
                f"{source.reading.name}: none of its {source.reading.read} records is to be learnt ({reasons}): "
                "add records, or take it out of the domain's sources"
            )
    over = [source for source in sources if source.bad > allowed * source.reading.read or not source.records]
    if not over:
        return
    shares = "; ".join(
        f"{source.reading.name}: {source.bad} of {source.reading.read} records are bad" for source in over
    )
    faults = [fault for source in over for fault in source.faults]
    raise DataError(
        f"{shares} (allowed: {allowed:.0%})\n{check.table(faults)}\n{_advice(over)}"
        "Mend these lines, or raise `max_bad_share` to leave them out"
    )


def _advice(over: Sequence[Checked]) -> str:
    broken = next((fault for source in over for fault in source.faults if "is not UTF-8" in fault.problem), None)
    if broken is None:
        return ""
    return (
        f"{broken.source} was probably saved by a Windows program: convert it, e.g. {advise_encoding(broken.source)}\n"
    )
