"""Which of the data sets that are built lost many of their records: whoever builds on them would
miss what is gone."""

from typing import Any, NamedTuple

from meetara_build.graph import Graph, Step
from meetara_build.outside import parse_json
from meetara_build.plan import FRESH, Plan
from meetara_build.stages.losses import KEYS, Losses
from meetara_build.store.manifest import Slice


class DataLosses(NamedTuple):
    """A domain, and what its data set lost; the recipe has the values of the keys that decide."""

    domain: str
    losses: Losses
    recipe: Slice

    def text(self) -> str:
        """In a sentence."""
        return f"{self.domain}: {self.losses.text(self.recipe)}."

    def as_json(self) -> dict[str, Any]:
        """As ``plan --json`` has it."""
        keys = {
            reason: f"data.{KEYS[reason]}" for reason in self.losses.by_reason if reason in KEYS
        }
        return {"domain": self.domain, **self.losses._asdict(), "keys": keys}


def data_losses(graph: Graph, made: Plan) -> list[DataLosses]:
    """The data sets of a plan that are as they will be, and of which more than a tenth of the
    records are left out."""
    found = []
    for item in made.items:
        if item.step.stage == "dataset" and item.action == FRESH:
            metrics = made.manifests["dataset", item.step.target].metrics
            # The manifest is read anyway, the card only for the few whose losses are large.
            if metrics.get("bad", 0) + metrics.get("dropped", 0):
                found.append(
                    DataLosses(item.step.target, _on_card(graph, item.step), item.step.recipe)
                )
    return [one for one in found if one.losses.is_large]


def _on_card(graph: Graph, step: Step) -> Losses:
    card = parse_json((graph.root / step.place.folder / "card.json").read_bytes())
    return Losses.of(card["counts"], card["dropped_by_reason"])
