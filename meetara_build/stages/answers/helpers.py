"""Whom a text tells to turn to."""

from collections.abc import Set
from typing import NamedTuple

from meetara_build.stages.answers.words import compile_words, normalise
from meetara_build.stages.recipes.safety import SafetyLists

URGENT = {"emergency", "poison_centre", "crisis_line"}
"""Who helps at once: one of them may stand for another, and for anybody else."""
FIELDS = (
    {"doctor", "pharmacist", "therapist", *URGENT},
    {"lawyer", "adviser", "police", *URGENT},
)
"""Of one field each: one may stand for another that is no more urgent."""
NAMES = {
    "emergency": "the emergency services",
    "poison_centre": "a poison centre",
    "crisis_line": "a crisis line",
    "doctor": "a doctor",
    "pharmacist": "a pharmacist",
    "therapist": "a therapist",
    "lawyer": "a lawyer",
    "adviser": "an adviser",
    "police": "the police",
}


class Mention(NamedTuple):
    """A kind of helper, the words that name one, and where they begin in the normalised text."""

    kind: str
    words: str
    at: int


class Helpers:
    """Finds helpers in texts of a language."""

    def __init__(self, lists: SafetyLists) -> None:
        self.patterns = {kind: compile_words(tuple(words)) for kind, words in lists.turn_to.items()}

    def find_helpers(self, text: str) -> list[Mention]:
        """Every mention, in the text's order."""
        text = normalise(text)
        found = [
            Mention(kind, match[0], match.start())
            for kind, pattern in self.patterns.items()
            for match in pattern.finditer(text)
        ]
        return sorted(found, key=lambda one: (one.at, one.kind))


def list_missing(wanted: Set[str], named: Set[str]) -> set[str]:
    """The kinds of helpers that a reference names and for which an answer names nobody; where the
    reference names somebody who helps at once, those alone count."""
    if urgent := wanted & URGENT:
        return set() if named & URGENT else set(urgent)
    fields = [field for field in FIELDS if field & wanted]
    return set() if not fields or any(field & named for field in fields) else set(wanted)
