"""Whether an answer is about what was asked: held against texts of other domains, which are not.

An answer on its topic has more in common with its own question and reference than with nearly any
text about something else. How much in common a right answer has with its reference differs from
domain to domain; that it has more than those does not, so that no bound has to be guessed. It is a
permutation test (Fisher 1935) whose permutations are the background.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from meetara_build.stages.answers.words import list_words

STEM = 5
"""Letters of a word that count, so that "choking" and "chokes" are one."""
FEWEST_TEXTS = 50
"""Of a background that tells anything."""
NEARER = 0.03
"""Of the background, which share may be as near to an answer as its own question and reference."""
SURELY_NEAR = 45.0
"""chrF that no two texts on different things have: the background is not asked."""


@dataclass(frozen=True)
class Background:
    """Texts of other domains, in one language: the answers, the stems of each with its question, and
    in how many of them each stem is."""

    answers: Sequence[str] = ()
    stems: Sequence[frozenset[str]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> "Background":
        """Of some questions and answers, in any order."""
        kept = sorted(set(texts))
        stems = [cut_stems(f"{question}\n{answer}") for question, answer in kept]
        counts = Counter(stem for one in stems for stem in one)
        return cls([answer for _, answer in kept], stems, dict(counts))

    @property
    def tells(self) -> bool:
        """Whether it has texts enough to be asked."""
        return len(self.answers) >= FEWEST_TEXTS

    def count_as_near_in_words(self, answer: str, wanted: str) -> float:
        """Which share of the texts has as much in common with an answer as what is wanted has: words
        in common, by their rarity (idf)."""
        if not self.tells:
            return 0.0
        own = cut_stems(answer)
        least = self._measure_common(own, cut_stems(wanted))
        near = sum(self._measure_common(own, one) >= least for one in self.stems)
        return near / len(self.stems)

    def count_as_near_in_letters(self, answer: str, reference: str) -> float:
        """Which share of the answers is as near to an answer as its reference is, by chrF."""
        least = measure_closeness(answer, reference) if self.tells else SURELY_NEAR
        if least >= SURELY_NEAR:
            return 0.0
        near = sum(measure_closeness(answer, one) >= least for one in self.answers)
        return near / len(self.answers)

    def _measure_common(self, own: frozenset[str], other: frozenset[str]) -> float:
        size = 1.0 + sum(map(self._weigh, other))
        return sum(sorted(map(self._weigh, own & other))) / math.sqrt(size)

    def _weigh(self, stem: str) -> float:
        return math.log((len(self.stems) + 1) / (self.counts.get(stem, 0) + 0.5))


def cut_stems(text: str) -> frozenset[str]:
    """The beginnings of a text's words of four letters and more."""
    return frozenset(
        word[:STEM] for word in list_words(text) if len(word) >= 4 and not re.match(r"\d", word)
    )


def measure_closeness(answer: str, reference: str) -> float:
    """chrF (Popović 2015), 0 to 100, as sacrebleu has it: character n-grams up to 6, beta 2."""
    return float(_scorer().sentence_score(answer, [reference]).score)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
