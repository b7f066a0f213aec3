"""Exact and near-duplicates: which records to drop, and which to keep on one side of the split.

Similarity is the cosine of TF-IDF vectors of character trigrams within words, of a text without
case and sentence punctuation. Trigrams work in every script and survive a typo. Each trigram weighs
the square root of its IDF: in a cosine the weight of both texts is multiplied, and with the whole
IDF a single typo, being rare, outweighed the rest of a short question (of 900 questions of public
sets, two letters swapped in each, 69% stayed above 0.85, not 46%).

Two records are
- *near-duplicates*, and the later is dropped, where both the questions and the answers reach
  ``near_duplicate``. Either alone is no reason to lose a record: another good answer to the same
  question, or the same answer to another question, teaches something (a comparison of question and
  answer as one text dropped "stages of anal cancer" as a copy of "stages of renal cancer", and a
  third of a set with short labels as answers);
- *kin*, and kept on one side of the split, where the questions are the same (`SAME`), or the
  answers are and are not mere labels (`LONG_ANSWER`), or question and answer taken together are, or
  both the questions and the whole reach ``near_group``. Kinship is passed on: groups are connected
  components. What more than `COMMON` of the records share (one instruction for all, one refusal)
  makes no kin: it would leave nothing to hold out.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meetara_build.stages.dataset.pairs import Bools, Heads, Ints, cosines_of
from meetara_build.stages.dataset.records import Drop, Record, fold_text
from meetara_build.stages.dataset.trigrams import count_trigrams, weigh

SAME = 0.85
COMMON = 0.1
MOST_PAIRS = 1_000_000  # of equal questions, compared at once
LONG_ANSWER = 60  # bytes in UTF-8
PUNCTUATION = re.compile(r"""[.,;:!?"'()…¿¡«»“”„‘’`。、，！？；：।॥؟،]+""")

Tell = Callable[[str, float], None]
"""Hears what is compared and which share of it is done."""


def say_nothing(_what: str, _share: float) -> None:
    """Where nobody waits."""


@dataclass(frozen=True)
class Distinct:
    """Records without duplicates; ``groups[i]`` is the same number for records that are kin."""

    records: list[Record]
    groups: list[int]
    drops: list[Drop]


def distinct(
    records: Sequence[Record], near_duplicate: float, near_group: float, tell: Tell = say_nothing
) -> Distinct:
    """Drop duplicates and group kin; a record is dropped for an earlier one that stays.

    Args:
        near_duplicate: cosine from which records are near-duplicates; 1 drops exact duplicates
            only.
        near_group: cosine from which records are kin.
        tell: hears how far the comparison is; 100,000 records take minutes.
    """
    first: dict[str, Record] = {}
    drops: dict[int, Drop] = {}
    for at, record in enumerate(records):
        earlier = first.setdefault(record.id, record)
        if earlier is not record:
            drops[at] = Drop(record.source, "duplicate", earlier.source, 1.0)
    places = [at for at in range(len(records)) if at not in drops]
    once = [records[at] for at in places]
    if len(once) < 2:
        return Distinct(once, list(range(len(once))), list(drops.values()))
    texts = _Texts.of(once)
    for later, earlier_at, similarity in _near(texts, near_duplicate, tell):
        drops[places[later]] = Drop(
            once[later].source,
            "near-duplicate",
            once[earlier_at].source,
            round(float(similarity), 3),
        )
    stays = np.array([at not in drops for at in places])
    kept = [record for record, stay in zip(once, stays, strict=True) if stay]
    groups = _kin(texts.only(stays), kept, near_group, tell)
    return Distinct(kept, groups, [drops[at] for at in sorted(drops)])


@dataclass(frozen=True)
class _Texts:
    """Vectors (records × trigrams, rows of length 1) of prompts, responses, and both together."""

    prompts: Any
    responses: Any
    wholes: Any

    @classmethod
    def of(cls, records: Sequence[Record]) -> "_Texts":
        texts = [_plain(record.prompt) for record in records] + [
            _plain(record.response) for record in records
        ]
        counts = count_trigrams(texts)
        prompts, responses = counts[: len(records)], counts[len(records) :]
        return cls(weigh(prompts), weigh(responses), weigh(prompts + responses))

    def only(self, rows: Bools) -> "_Texts":
        return _Texts(self.prompts[rows], self.responses[rows], self.wholes[rows])


def _plain(text: str) -> str:
    return " ".join(PUNCTUATION.sub(" ", fold_text(text)).split())


def _near(texts: _Texts, threshold: float, tell: Tell) -> Iterator[tuple[int, int, float]]:
    """(dropped, the kept one that it matches best, similarity), in order."""
    if threshold >= 1.0:
        return
    # Both cosines must reach the threshold, so pairs are looked for on the side where fewer come
    # into question.
    sides = (texts.prompts, texts.responses)
    heads = min((Heads(side, threshold) for side in sides), key=lambda side: side.products)
    other = texts.responses if heads.vectors is texts.prompts else texts.prompts
    dropped: Bools = np.zeros(other.shape[0], bool)
    for later, earlier, cosines in heads.pairs(
        lambda share: tell("near-duplicates", share), gone=dropped
    ):
        least = np.minimum(cosines, cosines_of(other, later, earlier))
        best: dict[int, list[tuple[float, int]]] = {}
        for at in np.flatnonzero(least >= threshold):
            best.setdefault(int(later[at]), []).append((-float(least[at]), int(earlier[at])))
        for row in sorted(best):
            matches = sorted(match for match in best[row] if not dropped[match[1]])
            if matches:
                dropped[row] = True
                yield row, matches[0][1], -matches[0][0]


def _kin(texts: _Texts, records: Sequence[Record], threshold: float, tell: Tell) -> list[int]:
    """A group number for each record: connected components of kinship."""
    groups = _Groups(len(records))
    _join_questions(groups, texts, records, threshold, tell)
    for later, earlier, _ in Heads(texts.wholes, SAME).pairs(
        lambda share: tell("kin by question and answer", share)
    ):
        groups.join(later, earlier)
    answers = [fold_text(record.response) for record in records]
    tells = np.array([len(answer.encode()) >= LONG_ANSWER for answer in answers]) & ~_common(
        answers
    )
    places = np.flatnonzero(tells)
    same = _Same.of([_plain(records[int(at)].response) for at in places])
    groups.join(places, places[same.first[same.number]])
    firsts = places[same.first]
    for later, earlier, _ in Heads(texts.responses[firsts], SAME).pairs(
        lambda share: tell("kin by answer", share)
    ):
        groups.join(firsts[later], firsts[earlier])
    return [int(label) for label in groups.labels]


def _join_questions(
    groups: "_Groups", texts: _Texts, records: Sequence[Record], threshold: float, tell: Tell
) -> None:
    """Join the records whose questions are the same, or are alike as the wholes are. Thousands may
    share one question."""
    asks = ~_common([fold_text(record.prompt) for record in records])
    same = _Same.of([_plain(record.prompt) for record in records])
    some_ask = np.bincount(same.number, asks) > 0
    is_one = some_ask.copy()
    found = Heads(texts.prompts[same.first], min(threshold, SAME))
    for later, earlier, cosines in found.pairs(lambda share: tell("kin by question", share)):
        of_one = (some_ask[later] | some_ask[earlier]) & (cosines >= SAME)
        is_one[later[of_one]] = is_one[earlier[of_one]] = True
        groups.join(same.first[later[of_one]], same.first[earlier[of_one]])
        alike = ~of_one & (cosines >= threshold)
        for left, right in same.members_of(later[alike], earlier[alike]):
            # The whole is compared only where it can still join two groups.
            still_open = (asks[left] | asks[right]) & (groups.labels[left] != groups.labels[right])
            left, right = left[still_open], right[still_open]
            alike_too = cosines_of(texts.wholes, left, right) >= threshold
            groups.join(left[alike_too], right[alike_too])
    members = np.flatnonzero(is_one[same.number])
    groups.join(members, same.first[same.number[members]])


@dataclass(frozen=True)
class _Same:
    """Equal texts: ``number[i]`` is that of text i, ``first[n]`` the first text with number n,
    ``members[n]`` all of them."""

    number: Ints
    first: Ints
    members: list[Ints]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Same":
        known: dict[str, int] = {}
        number = np.array([known.setdefault(text, len(known)) for text in texts], np.int64)
        members = (
            np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
            if len(texts)
            else []
        )
        return cls(number, np.array([of_one[0] for of_one in members], np.int64), members)

    def members_of(self, left: Ints, right: Ints) -> Iterator[tuple[Ints, Ints]]:
        """All pairs of texts of each two numbers, some at a time."""
        pairs: list[tuple[Ints, Ints]] = []
        waiting = 0
        for one, other in zip(left, right, strict=True):
            for member in self.members[one]:
                others = self.members[other]
                pairs.append((np.full(len(others), member), others))
                waiting += len(others)
                if waiting > MOST_PAIRS:
                    yield (
                        np.concatenate([a for a, _ in pairs]),
                        np.concatenate([b for _, b in pairs]),
                    )
                    pairs, waiting = [], 0
        if pairs:
            yield np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


class _Groups:
    """Groups of records that only grow together; ``labels[i]`` is the group of record i."""

    def __init__(self, count: int) -> None:
        self.labels: Ints = np.arange(count)

    def join(self, left: Ints, right: Ints) -> None:
        """Make one group of the groups of each pair of records."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        apart = self.labels[left] != self.labels[right]
        if not apart.any():
            return
        ends = self.labels[left[apart]], self.labels[right[apart]]
        count = len(self.labels)
        graph = coo_matrix((np.ones(len(ends[0]), np.int8), ends), shape=(count, count))
        _, component = connected_components(graph, directed=False)
        self.labels = component[self.labels].astype(np.int64)


def _common(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts more than a few and more than the share `COMMON` of the records have."""
    times = Counter(texts)
    return np.array([times[text] > max(10, COMMON * len(texts)) for text in texts])
