"""Which of the prepared records are left out: too short or too long for the recipe, or named in it;
and whether enough stay."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset.prepare import Prepared
from meetara_build.stages.dataset.records import Drop, Record, tally
from meetara_build.stages.losses import Losses
from meetara_build.stages.recipes.dataset import DatasetRecipe

if TYPE_CHECKING:  # a tokenizer's library takes seconds to import
    from transformers import PreTrainedTokenizerBase

    from meetara_build.stages.dataset.tokens import Length

SIDES = ("train", "validation", "test")


def limit(
    recipe: DatasetRecipe, prepared: Prepared, tokenizer: "PreTrainedTokenizerBase | None"
) -> "tuple[Prepared, list[Length]]":
    """The records within the recipe's limits, each on the side it was on, and their lengths.

    Without a tokenizer no length is known, and none leaves a record out.

    Raises:
        DataError: ``drop`` leaves nothing to train on, or names a record that the domain does not
            have.
    """
    limited, lengths = (prepared, []) if tokenizer is None else _within(recipe, prepared, tokenizer)
    return _without_named(limited, recipe), lengths


def losses(prepared: Prepared) -> Losses:
    """How many records were read, and by reason how many of them are left out."""
    return Losses.of(
        {"read": sum(prepared.read.values()), "bad": prepared.bad},
        tally([drop.reason for drop in prepared.drops]),
    )


def refuse_losses(recipe: DatasetRecipe, prepared: Prepared, limited: Prepared) -> None:
    """Refuse a data set that would lose most of itself, or one of its sides.

    Raises:
        DataError: more than ``max_drop_share`` of the good records are dropped, or a side has none
            within the limits.
    """
    found = losses(limited)
    if found.exceeds(recipe.max_drop_share):
        raise DataError(
            f"{recipe.domain}: {found.text(recipe.model_dump())}. That is more than "
            f"data.max_drop_share {recipe.max_drop_share} allows: change the keys that decide, "
            "mend the records, or raise data.max_drop_share to go on with what is left"
        )
    for side in SIDES:
        had, left = len(getattr(prepared, side)), len(getattr(limited, side))
        if had and not left:
            raise DataError(
                f"{recipe.domain}: none of the {had} {side} records has between data.min_tokens "
                f"{recipe.min_tokens} and data.max_tokens {recipe.max_tokens} tokens: change the "
                "limits, or use shorter or longer records"
            )


def _within(
    recipe: DatasetRecipe, prepared: Prepared, tokenizer: "PreTrainedTokenizerBase"
) -> "tuple[Prepared, list[Length]]":
    from meetara_build.stages.dataset import tokens

    sides: dict[str, list[Record]] = {}
    drops: list[Drop] = []
    measured: list[Length] = []
    for side in SIDES:
        records: list[Record] = getattr(prepared, side)
        sides[side] = []
        for record, length in zip(records, tokens.lengths(tokenizer, records), strict=True):
            if isinstance(length, str):
                drops.append(Drop(record.source, length))
            elif reason := _reason(length.whole, recipe):
                drops.append(Drop(record.source, reason))
            else:
                sides[side].append(record)
                measured.append(length)
    kept: dict[str, Any] = {**sides, "drops": [*prepared.drops, *drops]}
    return replace(prepared, **kept), measured


def _reason(tokens: int, recipe: DatasetRecipe) -> str:
    """Why a record of this length is left out; empty where it stays."""
    if tokens < recipe.min_tokens:
        return "too short"
    return "too long" if tokens > recipe.max_tokens else ""


def _without_named(prepared: Prepared, recipe: DatasetRecipe) -> Prepared:
    """The records without those training records that ``drop`` names: what is held out stays, so
    that figures stay comparable."""
    named = set(recipe.drop)
    if unknown := sorted(named - prepared.ids):
        raise DataError(
            f"{recipe.domain}: data.drop: {', '.join(unknown[:5])}: the domain has no such record "
            "(it was changed, or the id is mistyped): remove the id, or take one from the "
            "dataset's account.jsonl"
        )
    kept = [record for record in prepared.train if record.id not in named]
    if prepared.train and not kept:
        raise DataError(f"{recipe.domain}: data.drop leaves no record to train on: name fewer")
    dropped = [record for record in prepared.train if record.id in named]
    drops = [Drop(record.source, "named in data.drop", id=record.id) for record in dropped]
    return replace(prepared, train=kept, drops=[*prepared.drops, *drops])
