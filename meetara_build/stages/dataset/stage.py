"""The stage itself: prepare, limit the length, write."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meetara_build.stages.dataset import clean
from meetara_build.stages.dataset.limits import SIDES, limit, refuse_losses
from meetara_build.stages.dataset.prepare import Prepared, prepare
from meetara_build.stages.dataset.records import tally
from meetara_build.stages.recipes.dataset import DatasetRecipe
from meetara_build.stages.types import Inputs, Metrics

SECONDS_BETWEEN = 10.0


def run(recipe: DatasetRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``train.jsonl``, ``validation.jsonl``, ``test.jsonl``, ``card.json`` and
    ``account.jsonl``.

    The account alone names files and lines: what became of each record that was read. No other
    stage reads it, so that a source with another name, or a blank line more, trains nothing again.

    Recipe keys: domain, system_prompt, languages, sources, min_tokens, max_tokens (tokens of a
    whole conversation), near_duplicate, near_group, validation, test, max_bad_share,
    max_drop_share, repair_text, html_to_text, drop (ids of records that are not trained on).
    Inputs: ``base``, a folder with a tokenizer, and ``source_0``, ``source_1`` … for the sources
    that are files or folders.

    A token limit, or ``drop``, drops a record, but never moves one to another side.

    Raises:
        DataError: see ``prepare``, ``limit`` and ``refuse_losses``.
    """
    from meetara_build.stages.dataset import tokens

    prepared = prepare(recipe, inputs, _Progress())
    limited, measured = limit(recipe, prepared, tokens.load_tokenizer(inputs["base"]))
    refuse_losses(recipe, prepared, limited)
    metrics = _counts(limited)
    card = _card(recipe, limited, metrics, tokens.quantiles(measured))
    for side in SIDES:
        _write_lines(
            output / f"{side}.jsonl", [record.as_json() for record in getattr(limited, side)]
        )
    card["bytes"] = {side: (output / f"{side}.jsonl").stat().st_size for side in SIDES}
    (output / "card.json").write_text(
        json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    _write_lines(output / "account.jsonl", _account(limited))
    return metrics


class _Progress:
    """Prints how far a comparison is, at most every ten seconds: for the job's log."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, what: str, share: float) -> None:
        """Hear that a share of it is done."""
        if time.monotonic() - self.said > SECONDS_BETWEEN:
            self.said = time.monotonic()
            print(f"comparing records ({what}): {share:.0%}", flush=True)


def warm() -> None:
    """Import and load once, in the process that jobs fork from, what every dataset job needs."""
    from importlib import import_module

    for module in (
        f"{__package__}.record_schema",
        "scipy.sparse.csgraph",
        "sklearn.feature_extraction.text",
        f"{__package__}.tokens",
    ):
        import_module(module)
    clean.warm()


def _counts(prepared: Prepared) -> Metrics:
    sides = {side: len(getattr(prepared, side)) for side in SIDES}
    return {
        "read": sum(prepared.read.values()),
        "bad": prepared.bad,
        "dropped": len(prepared.drops),
        "kept": sum(sides.values()),
        **sides,
    }


def _card(
    recipe: DatasetRecipe, prepared: Prepared, counts: Metrics, lengths: dict[str, Any]
) -> dict[str, object]:
    records = [*prepared.train, *prepared.validation, *prepared.test]
    return {
        "domain": recipe.domain,
        "counts": counts,
        "dropped_by_reason": tally([drop.reason for drop in prepared.drops]),
        "languages": tally([record.language for record in records]),
        "topics": tally([record.topic or "" for record in records]),
        "tokens": lengths,
        "changed_texts": tally([change for record in records for change in record.kinds_of_change]),
    }


def _account(prepared: Prepared) -> list[dict[str, object]]:
    """What became of every record: its side and what was changed in its text, why it was dropped,
    or each of its faults."""
    kept = [
        {"source": record.source, "id": record.id, "side": side}
        | ({"changed": record.changed} if record.changed else {})
        for side in SIDES
        for record in getattr(prepared, side)
    ]
    return [
        *kept,
        *(drop.as_json() for drop in prepared.drops),
        *(fault.as_json() for fault in prepared.faults),
    ]


def _write_lines(path: Path, values: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
