"""A data file that is to become a domain: read and examined as a build would, before its file in
conf/ is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.cli.preview import show_records
from meetara_build.cli.tokenizer import find_tokenizer, not_measured
from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.config.schema import Domain
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.graph.recipes import Scope, make_recipe
from meetara_build.graph.stages import STAGE
from meetara_build.stages.dataset import Examined, examine, read_all
from meetara_build.stages.dataset.check import table
from meetara_build.stages.dataset.clean import languages_of
from meetara_build.stages.recipes.dataset import DatasetRecipe

FAULTS = 5
"""Bad records that are shown; `data check` shows the others."""
LOOK_AT = 2000
"""Records that are looked at: to compare all of a large file with each other takes minutes."""
LANGUAGES_OF = 300
"""Records by which the languages are guessed."""


class Looked(NamedTuple):
    """What was found in a data file: how it was read, its languages, what a build would make of it,
    and three records as they are learnt."""

    reading: str
    languages: list[str]
    recipe: DatasetRecipe
    examined: Examined
    shown: list[str]
    measured: str

    def lines(self) -> list[str]:
        """For people."""
        return [
            self.reading,
            "as it is learnt, what the model has to say marked with >:",
            *self.shown,
            *(
                [f"bad records:\n{table(self.examined.faults, FAULTS)}"]
                if self.examined.faults
                else []
            ),
            *self.notes(),
        ]

    def notes(self) -> list[str]:
        """In sentences: the languages, what is left out, and what a build would refuse."""
        losses, refusal = self.examined.losses, self.examined.refusal
        return [
            f"languages: {', '.join(self.languages)} (guessed by the texts)",
            *([losses.text(self.recipe.model_dump())] if losses.left_out and not refusal else []),
            *self.examined.notes,
            *([self.measured] if self.measured else []),
            *([f"as they are, a build refuses these data: {refusal}"] if refusal else []),
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "shown": self.shown,
            "faults": [fault.as_json() for fault in self.examined.faults],
            "losses": self.examined.losses._asdict(),
            "refused": self.examined.refusal,
        }


def look_at(project: Path, name: str, content: Mapping[str, Any], source: Path) -> Looked:
    """What is in a data file, read as the domain's file ``content`` says.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    configuration = Configuration(project)
    common = configuration.common(configuration.defaults["base"])
    configuration.save()
    domain = Domain.model_validate(content)
    item = Resolved(
        name, domain, common.base_name, common.base, "", common.hardware, common.build, []
    )
    recipe = make_recipe(STAGE["dataset"], Scope(item))
    assert isinstance(recipe, DatasetRecipe)
    looked_for = recipe.sources[0].model_copy(update={"limit": LOOK_AT})
    recipe = recipe.model_copy(update={"sources": [looked_for]})
    given = {"source_0": source}
    texts = [f"{record.prompt}\n{record.response}" for record in read_all(recipe, given)[0].records]
    languages = languages_of(texts[:: 1 + len(texts) // LANGUAGES_OF])
    recipe = recipe.model_copy(update={"languages": languages})
    (read,) = sources = read_all(recipe, given)
    tokenizer = _tokenizer(project, f"base/{common.base_name}")
    examined = examine(recipe, sources, tokenizer)
    used = {
        column.partition(".")[0] for column in content["sources"][0].get("columns", {}).values()
    }
    unused = [column for column in read.reading.columns if column not in used] if used else []
    looked_at = (
        f"{read.read:,} records read"
        if read.read < LOOK_AT
        else f"the first {LOOK_AT:,} records looked at"
    )
    reading = looked_at + (f"; columns that are not used: {', '.join(unused)}" if unused else "")
    shown = show_records(examined.records, tokenizer, whole=common.build.training.loss_on_prompt)
    measured = "" if tokenizer is not None else not_measured(common.base_name)
    return Looked(reading, languages, recipe, examined, shown, measured)


def _tokenizer(project: Path, base: str) -> Any:
    """The base's tokenizer; None where the project cannot be composed, as one without a domain."""
    try:
        graph = load(project)
    except ConfigError:
        return None
    step = graph.steps.get(("base", base))
    return None if step is None else find_tokenizer(graph, step)
