"""Sources made on the spot, and the recipe to read them."""

import random
from typing import Any

from meetara_build.stages.dataset import Prepared
from meetara_build.stages.recipes.dataset import DatasetRecipe

SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ru",
    "te",
    "na",
    "so",
    "vi",
    "pe",
    "du",
    "gra",
    "ble",
    "fon",
    "tir",
    "mas",
    "quo",
    "zen",
    "hul",
]


def sentence(key: object, words: int = 9) -> str:
    """A sentence that is always the same for a key and like that of no other."""
    draw = random.Random(f"sentence {key}")
    return " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(words))


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Records that have nothing in common."""
    return [
        {"prompt": sentence(f"q{n}"), "response": sentence(f"a{n}", 15)}
        for n in range(start, start + count)
    ]


def recipe(names: list[str], **changes: Any) -> DatasetRecipe:
    """A dataset recipe for sources of these names; ``source`` changes every one of them."""
    source = {"format": None, "split": "train", "limit": None, "columns": None, "language": None}
    source |= changes.pop("source", {})
    given = {
        "domain": "nutrition",
        "system_prompt": None,
        "languages": ["en"],
        "sources": [{"name": name, **source} for name in names],
        "min_tokens": 2,
        "max_tokens": 512,
        "near_duplicate": 0.85,
        "near_group": 0.6,
        "validation": 0.1,
        "test": 0.2,
        "max_bad_share": 0.05,
        "max_drop_share": 1.0,
        "repair_text": True,
        "html_to_text": False,
        "drop": [],
        **changes,
    }
    return DatasetRecipe.model_validate(given)


def everything(found: Prepared) -> dict[str, Any]:
    """All kept records by source."""
    return {record.source: record for record in [*found.train, *found.validation, *found.test]}


def csv_text(records: list[dict[str, Any]], *more: str, newline: str = "\n") -> str:
    """``prompt,response`` lines; ``more`` are appended as they are."""
    lines = [
        "prompt,response",
        *(f"{record['prompt']},{record['response']}" for record in records),
        *more,
    ]
    return newline.join(lines) + newline
