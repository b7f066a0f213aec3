"""Trigrams are counted as scikit-learn counts them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from meetara_build.stages.dataset import trigrams
from meetara_build.stages.dataset.trigrams import count_trigrams

WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=6), max_size=6
)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=8)


def assert_counted_alike(texts: list[str]) -> None:
    counter = CountVectorizer(
        analyzer="char_wb", ngram_range=(3, 3), lowercase=False, dtype=np.float32
    )
    expected = counter.fit_transform(texts)
    expected.sort_indices()
    counts = count_trigrams(texts)
    assert counts.shape == expected.shape
    assert (counts != expected).nnz == 0


@given(TEXTS.filter(lambda texts: any(texts)))
def test_as_scikit_learn_counts(texts: list[str]) -> None:
    assert_counted_alike(texts)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_in_chunks_too(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigrams, "CHUNK", chunk)
    assert_counted_alike(
        ["to be or not", "", "be", "नमस्ते दुनिया", "你好 世界", "😀 to be", "to be or not"]
    )


def test_texts_without_a_letter_have_no_trigrams() -> None:
    assert count_trigrams(["", ""]).shape == (2, 1)
    assert count_trigrams(["", ""]).nnz == 0
