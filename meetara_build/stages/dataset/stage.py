"""The stage itself: prepare, limit the length, write."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset import clean
from meetara_build.stages.dataset.prepare import Prepared, prepare
from meetara_build.stages.dataset.records import Drop, Record
from meetara_build.stages.types import Inputs, Metrics, Recipe

SIDES = ("train", "validation", "test")


def run(recipe: Recipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``train.jsonl``, ``validation.jsonl``, ``test.jsonl``, ``card.json`` and ``account.jsonl``.

    The account alone names files and lines: what became of each record that was read. No other stage reads it, so that
    a source with another name, or a blank line more, trains nothing again.

    Recipe keys: domain, system_prompt, languages, sources, min_tokens, max_tokens (tokens of a whole conversation),
    near_duplicate, near_group, validation, test, max_bad_share, drop (ids of records that are not trained on).
    Inputs: ``base``, a folder with a tokenizer, and ``source_0``, ``source_1`` … for the sources that are files or folders.

    A token limit, or ``drop``, drops a record, but never moves one to another side.

    Raises:
        DataError: see ``prepare``; the limits leave a side empty; ``drop`` leaves nothing to train on, or names a record that
            the domain does not have.
    """
    from meetara_build.stages.dataset import tokens

    prepared = prepare(recipe, inputs)
    tokenizer = tokens.load_tokenizer(inputs["base"])
    limited, measured = prepared, []
    for side in SIDES:
        records: list[Record] = getattr(prepared, side)
        lengths = tokens.lengths(tokenizer, records)
        wholes = [length if isinstance(length, str) else length.whole for length in lengths]
        drops = _outside(wholes, records, recipe["min_tokens"], recipe["max_tokens"])
        stay = [record.id not in drops for record in records]
        kept = [record for record, stays in zip(records, stay, strict=True) if stays]
        measured += [
            length for length, stays in zip(lengths, stay, strict=True) if stays and not isinstance(length, str)
        ]
        limited = replace(limited, **{side: kept}, drops=[*limited.drops, *drops.values()])  # type: ignore[arg-type]
    _refuse_empty(prepared, limited, recipe)
    limited = _without_named(limited, recipe)
    metrics = _counts(limited)
    card = _card(recipe, limited, metrics, tokens.quantiles(measured))
    for side in SIDES:
        _write_lines(output / f"{side}.jsonl", [record.as_json() for record in getattr(limited, side)])
    card["bytes"] = {side: (output / f"{side}.jsonl").stat().st_size for side in SIDES}
    (output / "card.json").write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _write_lines(output / "account.jsonl", _account(limited))
    return metrics


def warm() -> None:
    """Import and load once, in the process that jobs fork from, what every dataset job needs."""
    from importlib import import_module

    for module in (
        "pandera.pandas",
        "scipy.sparse.csgraph",
        "sklearn.feature_extraction.text",
        f"{__package__}.tokens",
    ):
        import_module(module)
    clean.warm()


def _outside(wholes: Sequence[int | str], records: Sequence[Record], fewest: int, most: int) -> dict[str, Drop]:
    """The records whose length is outside the limits, or that have a reason instead of a length, by id."""
    drops = {}
    for tokens, record in zip(wholes, records, strict=True):
        if isinstance(tokens, str):
            drops[record.id] = Drop(record.source, tokens)
        elif not fewest <= tokens <= most:
            drops[record.id] = Drop(record.source, "too short" if tokens < fewest else "too long")
    return drops


def _refuse_empty(before: Prepared, after: Prepared, recipe: Recipe) -> None:
    for side in SIDES:
        had, left = len(getattr(before, side)), len(getattr(after, side))
        if had and not left:
            raise DataError(
                f"{recipe['domain']}: none of the {had} {side} records has between data.min_tokens {recipe['min_tokens']} "
                f"and data.max_tokens {recipe['max_tokens']} tokens: change the limits, or use shorter or longer records"
            )


def _without_named(prepared: Prepared, recipe: Recipe) -> Prepared:
    """The records without those training records that ``drop`` names: what is held out stays, so that figures stay comparable."""
    named = set(recipe["drop"])
    if unknown := sorted(named - prepared.ids):
        raise DataError(
            f"{recipe['domain']}: data.drop: {', '.join(unknown[:5])}: the domain has no such record (it was changed, or the id "
            "is mistyped): remove the id, or take one from the dataset's account.jsonl"
        )
    kept = [record for record in prepared.train if record.id not in named]
    if not kept:
        raise DataError(f"{recipe['domain']}: data.drop leaves no record to train on: name fewer")
    dropped = [record for record in prepared.train if record.id in named]
    drops = [Drop(record.source, "named in data.drop", id=record.id) for record in dropped]
    return replace(prepared, train=kept, drops=[*prepared.drops, *drops])


def _counts(prepared: Prepared) -> Metrics:
    sides = {side: len(getattr(prepared, side)) for side in SIDES}
    return {
        "read": sum(prepared.read.values()),
        "bad": prepared.bad,
        "dropped": len(prepared.drops),
        "kept": sum(sides.values()),
        **sides,
    }


def _card(recipe: Recipe, prepared: Prepared, counts: Metrics, lengths: dict[str, Any]) -> dict[str, Any]:
    records = [*prepared.train, *prepared.validation, *prepared.test]
    return {
        "domain": recipe["domain"],
        "counts": counts,
        "dropped_by_reason": _tally([drop.reason for drop in prepared.drops]),
        "languages": _tally([record.language for record in records]),
        "topics": _tally([record.topic or "" for record in records]),
        "tokens": lengths,
    }


def _account(prepared: Prepared) -> list[dict[str, Any]]:
    """What became of every record: its side, why it was dropped, or each of its faults."""
    kept = [
        {"source": record.source, "id": record.id, "side": side} for side in SIDES for record in getattr(prepared, side)
    ]
    return [*kept, *(drop.as_json() for drop in prepared.drops), *(fault.as_json() for fault in prepared.faults)]


def _tally(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
