"""Exact and near-duplicates: which records to drop, and which to keep on one side of the split.

Similarity is the cosine of TF-IDF vectors of character trigrams within words, of a text without case and sentence
punctuation. Trigrams work in every script and survive a typo. Each trigram weighs the square root of its IDF: in a
cosine the weight of both texts is multiplied, and with the whole IDF a single typo, being rare, outweighed the rest
of a short question (of 900 questions of public sets, two letters swapped in each, 69% stayed above 0.85, not 46%).

Two records are
- *near-duplicates*, and the later is dropped, where both the questions and the answers reach ``near_duplicate``.
  Either alone is no reason to lose a record: another good answer to the same question, or the same answer to another
  question, teaches something (a comparison of question and answer as one text dropped "stages of anal cancer" as a
  copy of "stages of renal cancer", and a third of a set with short labels as answers);
- *kin*, and kept on one side of the split, where the questions are the same (`SAME`), or the answers are and are not
  mere labels (`LONG_ANSWER`), or question and answer taken together are, or both the questions and the whole reach
  ``near_group``. Kinship is passed on: groups are connected components. What more than `COMMON` of the records share
  (one instruction for all, one refusal) makes no kin: it would leave nothing to hold out.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meetara_build.stages.dataset.records import Drop, Record, folded

SAME = 0.85
BLOCK_CELLS = 4_000_000  # similarities held at once, about 50 MB however many records there are
COMMON = 0.1
LONG_ANSWER = 60  # bytes in UTF-8
PUNCTUATION = re.compile(r"""[.,;:!?"'()…¿¡«»“”„‘’`。、，！？；：।॥؟،]+""")

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Distinct:
    """Records without duplicates; ``groups[i]`` is the same number for records that are kin."""

    records: list[Record]
    groups: list[int]
    drops: list[Drop]


def distinct(records: Sequence[Record], near_duplicate: float, near_group: float) -> Distinct:
    """Drop duplicates and group kin; a record is dropped for an earlier one that stays.

    Args:
        near_duplicate: cosine from which records are near-duplicates; 1 drops exact duplicates only.
        near_group: cosine from which records are kin.
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
    for later, earlier_at, similarity in _near(texts, near_duplicate):
        drops[places[later]] = Drop(
            once[later].source, "near-duplicate", once[earlier_at].source, round(float(similarity), 3)
        )
    stays = np.array([at not in drops for at in places])
    kept = [record for record, stay in zip(once, stays, strict=True) if stay]
    groups = _kin(texts.only(stays), kept, near_group)
    return Distinct(kept, groups, [drops[at] for at in sorted(drops)])


@dataclass(frozen=True)
class _Texts:
    """TF-IDF vectors (records × trigrams, rows of length 1) of prompts, responses, and both together."""

    prompts: Any
    responses: Any
    wholes: Any

    @classmethod
    def of(cls, records: Sequence[Record]) -> "_Texts":
        from sklearn.feature_extraction.text import CountVectorizer

        texts = [_plain(record.prompt) for record in records] + [_plain(record.response) for record in records]
        counter = CountVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False, dtype=np.float32)
        try:
            counts = counter.fit_transform(texts)
        except ValueError:  # "empty vocabulary": not one letter anywhere, so nothing is similar
            from scipy.sparse import csr_matrix

            counts = csr_matrix((len(texts), 1), dtype=np.float32)
        prompts, responses = counts[: len(records)], counts[len(records) :]
        return cls(_weigh(prompts), _weigh(responses), _weigh(prompts + responses))

    def only(self, rows: NDArray[np.bool_]) -> "_Texts":
        return _Texts(self.prompts[rows], self.responses[rows], self.wholes[rows])


def _plain(text: str) -> str:
    return " ".join(PUNCTUATION.sub(" ", folded(text)).split())


def _weigh(counts: Any) -> Any:
    from scipy.sparse import diags
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    weigher = TfidfTransformer(sublinear_tf=True, norm=None)
    weighed = weigher.fit_transform(counts) @ diags(1.0 / np.sqrt(weigher.idf_))
    return normalize(weighed).astype(np.float32).tocsr()


def _similar(vectors: Any, threshold: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Pairs (later, earlier) of rows whose cosine reaches the threshold, a block of later rows at a time."""
    count = vectors.shape[0]
    step = max(16, min(512, BLOCK_CELLS // max(1, count)))
    # Only earlier rows matter: an eighth of the rows at a time is compared with what stands before its end.
    bounds = np.linspace(0, count, 9).astype(int)
    for begin, end in pairwise(bounds):
        columns = vectors[:end].T.tocsr()
        for start in range(begin, end, step):
            product = vectors[start : min(start + step, end)] @ columns
            product.data[product.data < threshold] = 0.0
            product.eliminate_zeros()
            pairs = product.tocoo()
            later, earlier = pairs.row.astype(np.int64) + start, pairs.col.astype(np.int64)
            keep = earlier < later
            yield later[keep], earlier[keep], pairs.data[keep]


def _cosines(vectors: Any, left: Ints, right: Ints) -> Floats:
    """The cosine of each pair of rows."""
    parts = [
        np.asarray(vectors[left[at : at + 20_000]].multiply(vectors[right[at : at + 20_000]]).sum(axis=1)).ravel()
        for at in range(0, len(left), 20_000)
    ]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def _near(texts: _Texts, threshold: float) -> Iterator[tuple[int, int, float]]:
    """(dropped, the kept one that it matches best, similarity), in order."""
    if threshold >= 1.0:
        return
    dropped: set[int] = set()
    for later, earlier, prompt_cosines in _similar(texts.prompts, threshold):
        cosines = np.minimum(prompt_cosines, _cosines(texts.responses, later, earlier))
        best: dict[int, list[tuple[float, int]]] = {}
        for at in np.flatnonzero(cosines >= threshold):
            best.setdefault(int(later[at]), []).append((-float(cosines[at]), int(earlier[at])))
        for row in sorted(best):
            matches = sorted(match for match in best[row] if match[1] not in dropped)
            if matches:
                dropped.add(row)
                yield row, matches[0][1], -matches[0][0]


def _kin(texts: _Texts, records: Sequence[Record], threshold: float) -> list[int]:
    """A group number for each record: connected components of kinship."""
    labels: Ints = np.arange(len(records))
    asks = ~_common([folded(record.prompt) for record in records])
    for later, earlier, cosines in _similar(texts.prompts, min(threshold, SAME)):
        asks_something = asks[later] | asks[earlier]
        labels = _joined(labels, later, earlier, asks_something & (cosines >= SAME))
        # The whole is compared only where it can still join two groups.
        still_open = asks_something & (cosines >= threshold) & (labels[later] != labels[earlier])
        later, earlier = later[still_open], earlier[still_open]
        labels = _joined(labels, later, earlier, _cosines(texts.wholes, later, earlier) >= threshold)
    for later, earlier, _ in _similar(texts.wholes, SAME):
        labels = _joined(labels, later, earlier, np.ones(len(later), bool))
    answers = [folded(record.response) for record in records]
    tells = np.array([len(answer.encode()) >= LONG_ANSWER for answer in answers]) & ~_common(answers)
    places = np.flatnonzero(tells)
    for later, earlier, _ in _similar(texts.responses[places], SAME):
        labels = _joined(labels, places[later], places[earlier], np.ones(len(later), bool))
    return [int(label) for label in labels]


def _common(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts more than a few and more than the share `COMMON` of the records have."""
    times = Counter(texts)
    return np.array([times[text] > max(10, COMMON * len(texts)) for text in texts])


def _joined(labels: Ints, left: Ints, right: Ints, which: NDArray[np.bool_]) -> Ints:
    """Labels after the chosen pairs have become one group each."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = labels[left[which]], labels[right[which]]
    if not len(ends[0]):
        return labels
    graph = coo_matrix((np.ones(len(ends[0]), np.int8), ends), shape=(len(labels), len(labels)))
    _, component = connected_components(graph, directed=False)
    joined: Ints = component[labels].astype(np.int64)
    return joined
