"""How many records of a data set are left out, for what reasons, and which keys decide: for whoever
would miss them."""

from collections.abc import Mapping
from typing import NamedTuple

KEYS = {
    "bad": "max_bad_share",
    "too long": "max_tokens",
    "too short": "min_tokens",
    "near-duplicate": "near_duplicate",
    "named in data.drop": "drop",
}
"""Below ``data``, the key that decides whether a record is left out for a reason; other reasons are
the record's own."""

ASKED = ("named in data.drop", "labelled as bad", "nothing to learn")
"""Reasons that somebody gave on purpose, in the configuration or in the data: no loss."""

MANY = 0.1
"""The share of records left out from which everybody is told."""


class Losses(NamedTuple):
    """How many records were read, and by reason how many of them are left out; those that cannot be
    used are ``bad``."""

    read: int
    by_reason: dict[str, int]

    @classmethod
    def of(cls, counts: Mapping[str, int], dropped_by_reason: Mapping[str, int]) -> "Losses":
        """From the ``counts`` and the ``dropped_by_reason`` of a dataset's card."""
        bad = {"bad": counts["bad"]} if counts["bad"] else {}
        return cls(counts["read"], {**dropped_by_reason, **bad})

    @property
    def left_out(self) -> int:
        """How many records are left out, for whatever reason."""
        return sum(self.by_reason.values())

    @property
    def is_large(self) -> bool:
        """Whether more than `MANY` of the records are left out."""
        return self.left_out > MANY * self.read

    def exceeds(self, share: float) -> bool:
        """Whether more than this share is dropped of the records that are good and that nobody
        asked to leave out.

        Copies count: where most records are copies of few, a wrong column is the likeliest cause,
        and what is learnt is little.
        """
        dropped = sum(
            count
            for reason, count in self.by_reason.items()
            if reason != "bad" and reason not in ASKED
        )
        return dropped > share * (self.read - self.left_out + dropped)

    def text(self, recipe: Mapping[str, object] | None = None) -> str:
        """``950 of 1,012 records are left out: 940 too long (data.max_tokens 512), …``; values of
        keys as the dataset's recipe has them."""
        reasons = sorted(self.by_reason.items(), key=lambda item: (-item[1], item[0]))
        said = ", ".join(
            f"{count:,} {reason}{_key(reason, recipe or {})}" for reason, count in reasons
        )
        return (
            f"{self.left_out:,} of {self.read:,} records ({self.left_out / self.read:.0%}) are "
            f"left out: {said}"
        )


def _key(reason: str, recipe: Mapping[str, object]) -> str:
    key = KEYS.get(reason)
    if key is None or f"data.{key}" in reason:
        return ""
    return f" (data.{key} {recipe[key]})" if key in recipe else f" (data.{key})"
