"""Training answers that an answer holds whole."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meetara_build.stages.answers.words import list_words

SHINGLE = 5
"""Words of one piece that texts are compared by (Broder 1997)."""
FEWEST_WORDS = 12
"""A shorter training answer may be said by anybody."""
WHOLE = 0.7
"""Of a training answer's pieces, which share makes it copied: a word changed in every twenty leaves
three quarters of them."""


@dataclass(frozen=True)
class CopyIndex:
    """Training answers by their pieces."""

    answers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    holders: Mapping[tuple[str, ...], frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Iterable[str]) -> "CopyIndex":
        """Of some training answers, in any order."""
        kept = sorted({one for one in answers if len(list_words(one)) >= FEWEST_WORDS})
        pieces = [cut_shingles(one) for one in kept]
        holders: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for at, found in enumerate(pieces):
            for piece in found:
                holders[piece].add(at)
        frozen = {piece: frozenset(found) for piece, found in holders.items()}
        return cls(tuple(kept), tuple(map(len, pieces)), frozen)

    def find_copied(self, text: str) -> tuple[str, float] | None:
        """The training answer of which a text holds most, and which share of its pieces; None below
        ``WHOLE``."""
        counts: dict[int, int] = defaultdict(int)
        for piece in cut_shingles(text):
            for at in self.holders.get(piece, ()):
                counts[at] += 1
        shares = [(counts[at] / self.sizes[at], self.answers[at]) for at in counts]
        share, answer = max(shares, default=(0.0, ""))
        return (answer, share) if share >= WHOLE else None


def cut_shingles(text: str) -> set[tuple[str, ...]]:
    """Each run of ``SHINGLE`` words."""
    words = list_words(text)
    return {tuple(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)}
