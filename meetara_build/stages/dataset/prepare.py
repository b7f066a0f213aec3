"""Everything that needs no tokenizer: read, shape, clean, check, drop duplicates, split."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from meetara_build.errors import BadRecordsError, DataError
from meetara_build.stages.dataset import check, clean, columns, markup, shape
from meetara_build.stages.dataset.duplicates import Tell, distinct, say_nothing
from meetara_build.stages.dataset.records import Drop, Fault, Message, Record, content_id, tally
from meetara_build.stages.dataset.sources import Reading, read_source
from meetara_build.stages.dataset.split import split
from meetara_build.stages.dataset.text_files import advise_encoding
from meetara_build.stages.losses import Losses
from meetara_build.stages.recipes.preparation import Preparation, SourceRecipe
from meetara_build.stages.sample import SAMPLE, read_sample
from meetara_build.stages.types import Inputs


@dataclass(frozen=True)
class Prepared:
    """Records by side, in the order of the sources; what was dropped, what was bad, and how much
    was read of each.

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
    def read(self) -> int:
        """How many records it holds."""
        return self.reading.read

    @property
    def bad(self) -> int:
        """How many of its records have a fault."""
        return self.read - len(self.records) - len(self.drops)


def prepare(recipe: Preparation, inputs: Inputs, tell: Tell = say_nothing) -> Prepared:
    """The records of a domain by side, before any limit in tokens.

    Raises:
        DataError: a source cannot be read or lacks a column, more than ``max_bad_share`` of its
            records are bad (the message holds the table of faults), or too few records are left to
            split.
    """
    return divide(recipe, read_all(recipe, inputs), tell, find_taught(inputs))


def find_taught(inputs: Inputs) -> frozenset[str]:
    """The ids of the pinned sample's records; none where there is no sample."""
    if SAMPLE not in inputs:
        return frozenset()
    messages = (
        [Message(role=turn["role"], content=turn["content"]) for turn in turns]
        for turns in read_sample(inputs[SAMPLE])
    )
    return frozenset(map(content_id, messages))


def read_all(recipe: Preparation, inputs: Inputs) -> list[Checked]:
    """What each source of a domain holds, good and bad.

    Raises:
        DataError: a source cannot be read at all or lacks a column.
    """
    return [
        _check(source, inputs.get(f"source_{number}"), recipe)
        for number, source in enumerate(recipe.sources)
    ]


def divide(
    recipe: Preparation,
    sources: Sequence[Checked],
    tell: Tell = say_nothing,
    taught: Set[str] = frozenset(),
) -> Prepared:
    """The records of sources by side, copies left out; ``tell`` hears how far the comparison is,
    ``taught`` are the ids that the pinned sample holds.

    Raises:
        DataError: more than ``max_bad_share`` of a source's records are bad, or too few are left to
            split.
    """
    faults = [fault for source in sources for fault in source.faults]
    _refuse_bad(sources, recipe.max_bad_share)
    records = [record for source in sources for record in source.records]
    found = distinct(records, recipe.near_duplicate, recipe.near_group, tell)
    read: dict[str, int] = {}
    for source in sources:
        read[source.reading.name] = read.get(source.reading.name, 0) + source.read
    bad = sum(source.bad for source in sources)
    drops = [*(drop for source in sources for drop in source.drops), *found.drops]
    try:
        sides = split(
            [record.id for record in found.records],
            found.groups,
            recipe.validation,
            recipe.test,
            taught,
        )
    except DataError as error:
        lost = Losses.of(
            {"read": sum(read.values()), "bad": bad}, tally([drop.reason for drop in drops])
        )
        raise DataError(
            f"{lost.text(recipe.model_dump())}; {error}" if lost.left_out else str(error)
        ) from None
    by_side = {
        side: [record for record, of in zip(found.records, sides, strict=True) if of == side]
        for side in ("train", "validation", "test")
    }
    ids = frozenset(record.id for record in records)
    return Prepared(**by_side, drops=drops, faults=faults, bad=bad, read=read, ids=ids)


def _check(source: SourceRecipe, path: Path | None, recipe: Preparation) -> Checked:
    reading = read_source(source, path)
    if not reading.rows:
        return Checked(reading, [], reading.faults, [])
    fields = columns.mapping(reading.name, source.columns, reading.columns)
    faults = list(reading.faults)
    drafts, drops = [], []
    for row in reading.rows:
        drafted = shape.draft(row, fields)
        if isinstance(drafted, Fault):
            faults.append(drafted)
        elif isinstance(drafted, Drop):
            drops.append(drafted)
        else:
            drafts.append(drafted)
    bad = check.faults_of(drafts)
    faults += [fault for of_one in bad.values() for fault in of_one]
    records = [_record(draft, source, recipe) for at, draft in enumerate(drafts) if at not in bad]
    return Checked(reading, records, sorted(faults, key=lambda fault: fault.line), drops)


def _record(draft: shape.Draft, source: SourceRecipe, recipe: Preparation) -> Record:
    cells, changed = _clean(draft.cells, recipe)
    messages = shape.messages([cell for cell in cells if cell.content.strip()])
    if messages[0]["role"] != "system" and recipe.system_prompt:
        messages.insert(0, {"role": "system", "content": recipe.system_prompt})
    languages = recipe.languages
    language = clean.language_of(
        _name_place(messages, "user"),
        _name_place(messages, "assistant"),
        draft.language,
        source.language or (languages[0] if languages else "en"),
        languages,
    )
    topic = next((cell.content.strip() for cell in cells if cell.role == "topic"), None)
    where = f"{draft.row.source}:{draft.row.line}"
    return Record(content_id(messages), messages, language, topic or None, where, changed)


def _clean(
    cells: Sequence[shape.Cell], recipe: Preparation
) -> tuple[list[shape.Cell], dict[str, list[str]]]:
    """Checked cells as they are learnt, and by column what was changed in them."""
    changed: dict[str, list[str]] = {}
    if recipe.html_to_text:
        plain = [markup.to_text(cell.content) for cell in cells]
        changed = {
            cell.column: ["HTML"]
            for cell, text in zip(cells, plain, strict=True)
            if text != cell.content
        }
        cells = [replace(cell, content=text) for cell, text in zip(cells, plain, strict=True)]
    if recipe.repair_text:
        mended = clean.mend([cell.content for cell in cells])
        for cell, (_, changes) in zip(cells, mended, strict=True):
            if changes:
                changed.setdefault(cell.column, []).extend(changes)
        cells = [replace(cell, content=text) for cell, (text, _) in zip(cells, mended, strict=True)]
    return list(cells), changed


def _name_place(messages: Sequence[Message], role: str) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] == role)


def _refuse_bad(sources: Sequence[Checked], allowed: float) -> None:
    """One error for all sources with too many bad records, with the faults of each."""
    for source in sources:
        if not source.records and not source.faults:
            reasons = ", ".join(sorted({drop.reason for drop in source.drops}))
            raise DataError(
                f"{source.reading.name}: none of its {source.read} records is to be learnt "
                f"({reasons}): add records, or take it out of the domain's sources"
            )
    over = [
        source for source in sources if source.bad > allowed * source.read or not source.records
    ]
    if not over:
        return
    shares = "; ".join(
        f"{source.reading.name}: {source.bad} of {source.read} records are bad" for source in over
    )
    faults = [fault for source in over for fault in source.faults]
    raise BadRecordsError(
        f"{shares} (data.max_bad_share allows "
        f"{allowed:.0%})\n{check.table(faults)}\n{_advice(over)}Mend these lines, or raise "
        "`data.max_bad_share` to leave them out"
    )


def _advice(over: Sequence[Checked]) -> str:
    broken = next(
        (fault for source in over for fault in source.faults if "is not UTF-8" in fault.problem),
        None,
    )
    if broken is None:
        return ""
    return (
        f"{broken.source} was probably saved by a Windows program: convert it, e.g. "
        f"{advise_encoding(broken.source)}\n"
    )
