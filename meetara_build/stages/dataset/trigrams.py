"""Texts as vectors of character trigrams within words, counted and weighed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 4_000_000
"""Characters counted at once: about 200 MB while they are sorted, however long the texts are."""

Ints = NDArray[np.int64]


def count_trigrams(texts: Sequence[str]) -> Any:
    """How often each trigram occurs in each text: a float32 CSR matrix, texts × trigrams in the
    order of their code points.

    Words are bordered by a space on each side, as
    ``CountVectorizer(analyzer="char_wb", ngram_range=(3, 3))`` of scikit-learn does, which takes
    several times longer. Words of a text must be separated by single spaces.
    """
    from scipy.sparse import csr_matrix

    letters = np.array(sorted(map(ord, set(" ").union(*texts))))
    parts = list(_count(texts, letters))
    codes = np.concatenate([codes for _, codes, _ in parts])
    known = np.unique(codes)
    columns = np.searchsorted(known, codes).astype(np.int32)
    begins = np.searchsorted(
        np.concatenate([rows for rows, _, _ in parts]), np.arange(len(texts) + 1)
    )
    counts = np.concatenate([counts for _, _, counts in parts]).astype(np.float32)
    return csr_matrix((counts, columns, begins), shape=(len(texts), max(1, len(known))))


def weigh(counts: Any) -> Any:
    """Rows of length 1, each trigram weighed by 1 + ln of its count and the square root of its IDF:
    see ``duplicates``."""
    from scipy.sparse import diags
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    weigher = TfidfTransformer(sublinear_tf=True, norm=None)
    weighed = weigher.fit_transform(counts) @ diags(1.0 / np.sqrt(weigher.idf_))
    return normalize(weighed).astype(np.float32).tocsr()


def _count(texts: Sequence[str], letters: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Number of the text, code of the trigram, and count, of all trigrams of all texts, in order; a
    chunk at a time."""
    base = len(letters)
    number_of = np.zeros(letters[-1] + 1, np.int64)
    number_of[letters] = np.arange(base)
    space = number_of[ord(" ")]
    # One number names text and trigram, so that one sort sorts both: it must fit into 63 bits.
    for first, last in _chunks(texts, 2**62 // base**3):
        bordered = [f" {text} " for text in texts[first:last]]
        points = np.frombuffer("".join(bordered).encode("utf-32-le", "surrogatepass"), np.uint32)
        spelt, owner = (
            number_of[points],
            np.repeat(np.arange(last - first), [len(text) for text in bordered]),
        )
        # A window is a trigram where its middle is no space: it lies within one word, its borders
        # included.
        middle = np.flatnonzero(spelt != space)
        keys = ((owner[middle] * base + spelt[middle - 1]) * base + spelt[middle]) * base + spelt[
            middle + 1
        ]
        keys.sort()
        begins = np.flatnonzero(np.diff(keys, prepend=-1))
        yield (
            keys[begins] // base**3 + first,
            keys[begins] % base**3,
            np.diff(begins, append=len(keys)),
        )


def _chunks(texts: Sequence[str], most: int) -> Iterator[tuple[int, int]]:
    """Runs of texts, of about ``CHUNK`` characters and ``most`` texts."""
    first = characters = 0
    for at, text in enumerate(texts):
        if at > first and (characters + len(text) > CHUNK or at - first >= most):
            yield first, at
            first, characters = at, 0
        characters += len(text)
    yield first, len(texts)
