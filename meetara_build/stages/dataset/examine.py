"""What a build would make of a domain's sources, found by the same steps, and nothing written."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meetara_build.errors import DataError
from meetara_build.stages.dataset import clean, markup
from meetara_build.stages.dataset.duplicates import Tell, say_nothing
from meetara_build.stages.dataset.limits import limit, losses, refuse_losses
from meetara_build.stages.dataset.prepare import Checked, divide
from meetara_build.stages.dataset.records import Fault, Record, tally
from meetara_build.stages.losses import Losses
from meetara_build.stages.recipes.dataset import DatasetRecipe

if TYPE_CHECKING:  # a tokenizer's library takes seconds to import
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Examined:
    """What a build would make of sources.

    ``refusal`` is the error it would stop with, if any; ``records`` are those it would train on, or
    all good ones where it stops; ``notes`` are sentences on what is no fault and yet may not be
    meant.
    """

    records: list[Record]
    faults: list[Fault]
    losses: Losses
    refusal: str | None
    notes: list[str]


def examine(
    recipe: DatasetRecipe,
    sources: Sequence[Checked],
    tokenizer: "PreTrainedTokenizerBase | None",
    tell: Tell = say_nothing,
    taught: Set[str] = frozenset(),
) -> Examined:
    """What a build would make of these sources, some of whose records the pinned sample holds
    (``taught``, ids); without a tokenizer, but for the limits in tokens."""
    faults = [fault for source in sources for fault in source.faults]
    good = [record for source in sources for record in source.records]
    counts = {part: sum(getattr(source, part) for source in sources) for part in ("read", "bad")}
    found = Losses.of(counts, tally([drop.reason for source in sources for drop in source.drops]))
    records, refusal = good, None
    try:
        prepared = divide(recipe, sources, tell, taught)
        limited, _ = limit(recipe, prepared, tokenizer)
        found = losses(limited)
        refuse_losses(recipe, prepared, limited)
        records = limited.train
    except DataError as error:
        refusal = str(error)
    return Examined(records, faults, found, refusal, _notes(recipe, good))


def _notes(recipe: DatasetRecipe, records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    notes = []
    if changed := tally([change for record in records for change in record.kinds_of_change]):
        said = ", ".join(f"{kind} in {count:,}" for kind, count in changed.items())
        notes.append(
            f"texts are changed (records): {said}; data.repair_text and data.html_to_text decide, "
            "account.jsonl lists them"
        )
    html = sum(markup.is_html(record.response) for record in records)
    if html > len(records) / 2:
        notes.append(
            f"{html:,} of {len(records):,} answers hold HTML, which is learnt as it stands; "
            "data.html_to_text: true makes it text"
        )
    garbled = [
        record for record in records if clean.looks_garbled(f"{record.prompt}\n{record.response}")
    ]
    if garbled:
        notes.append(
            f"text looks garbled, like 'Ã©' for 'é', and stays as it is in {len(garbled):,} of "
            f"{len(records):,} records ({garbled[0].source} is the first): mend the source where "
            "it is not about such text"
        )
    language, count = Counter(record.language for record in records).most_common(1)[0]
    if language not in recipe.languages:
        notes.append(
            f"{count:,} of {len(records):,} records are in '{language}', which the domain's "
            "`languages` does not name"
        )
    return notes
