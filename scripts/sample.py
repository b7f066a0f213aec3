"""Choose the pinned sample anew: ``python scripts/sample.py`` writes conf/sample.jsonl.

Of each domain the records in the middle of the training side, which no change of the split's shares
moves to another. Whoever runs it changes what all domains stand on: everything is built again.
"""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from meetara_build.graph import load
from meetara_build.stages.dataset import Record, prepare
from meetara_build.stages.dataset.split import place
from meetara_build.stages.recipes.dataset import DatasetRecipe

PROJECT = Path(__file__).parent.parent
TARGET = PROJECT / "conf" / "sample.jsonl"
OF_EACH_DOMAIN = 2


def choose_records() -> Iterator[Record]:
    """Records of each domain, one of each after the other; none that any domain holds out, none twice."""
    graph = load(PROJECT)
    found = {}
    for domain in graph.domains:
        step = graph.step("dataset", domain)
        recipe = DatasetRecipe.model_validate(step.recipe)
        sources = {name: Path(path) for name, path in step.sources.items() if name != "sample"}
        found[domain] = recipe, prepare(recipe, sources)
    seen = {one.id for _, made in found.values() for one in (*made.validation, *made.test)}
    by_domain = []
    for _, (recipe, made) in sorted(found.items()):
        middle = (recipe.validation + 1 - recipe.test) / 2
        records = sorted(made.train, key=lambda one: abs(place(one.id) - middle))
        chosen = [one for one in records if one.id not in seen][:OF_EACH_DOMAIN]
        seen |= {one.id for one in chosen}
        by_domain.append(chosen)
    for several in zip_longest(*by_domain):  # one of each: also a part of it is of all
        yield from filter(None, several)


def write_sample(records: Iterator[Record]) -> None:
    """Without system prompts: what knew each domain's would know the domain."""
    turns = [[turn for turn in one.messages if turn["role"] != "system"] for one in records]
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in turns]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_sample(choose_records())
