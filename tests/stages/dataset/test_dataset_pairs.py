"""Pairs found through heads are all the pairs that comparing everything finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from meetara_build.stages.dataset import pairs
from meetara_build.stages.dataset.pairs import Heads


def found(heads: Heads) -> dict[tuple[int, int], float]:
    return {
        (int(a), int(b)): float(cosine)
        for block in heads.pairs()
        for a, b, cosine in zip(*block, strict=True)
    }


def every_pair(vectors: csr_matrix, threshold: float) -> dict[tuple[int, int], float]:
    cosines = (vectors @ vectors.T).toarray()
    return {
        (a, b): float(cosines[a, b])
        for a in range(len(cosines))
        for b in range(a)
        if cosines[a, b] >= threshold
    }


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.99), st.integers(1, 60), st.integers(2, 40))
def test_no_pair_is_missed_and_none_is_made_up(
    seed: int, threshold: float, rows: int, columns: int
) -> None:
    source = np.random.default_rng(seed)
    dense = source.random((rows, columns)) ** 4 * (
        source.random((rows, columns)) < source.random(columns)
    )
    dense[rows // 2 :] = dense[: rows - rows // 2] * (
        source.random((rows - rows // 2, columns)) < 0.8
    )
    vectors = normalize(csr_matrix(dense.astype(np.float32)))
    got = found(Heads(vectors, threshold))
    clearly = every_pair(vectors, threshold + 1e-5)
    assert set(clearly) <= set(got) <= set(every_pair(vectors, threshold - 1e-5))
    assert got == pytest.approx({pair: every_pair(vectors, 0.0)[pair] for pair in got}, abs=1e-5)


def test_blocks_and_rounds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(1)
    vectors = normalize(csr_matrix((source.random((300, 30)) ** 6).astype(np.float32)))
    whole = found(Heads(vectors, 0.8))
    monkeypatch.setattr(pairs, "BLOCK_PRODUCTS", 500)
    monkeypatch.setattr(pairs, "FIRST", 7)
    assert whole
    assert found(Heads(vectors, 0.8)) == whole


def test_a_row_that_is_gone_is_found_no_more_in_later_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pairs, "FIRST", 2)
    vectors = csr_matrix(np.ones((6, 1), np.float32))
    gone = np.zeros(6, bool)
    seen = set()
    for later, earlier, _ in Heads(vectors, 0.9).pairs(gone=gone):
        seen |= set(zip(later.tolist(), earlier.tolist(), strict=True))
        gone[later] = True
    assert (1, 0) in seen
    assert all(earlier in (0, later - 1) for later, earlier in seen if later > 3)


def test_how_far_it_is_is_told() -> None:
    shares: list[float] = []
    list(Heads(csr_matrix(np.eye(20, dtype=np.float32)), 0.9).pairs(shares.append))
    assert shares[-1] == 1.0


@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (3, 1)])
def test_rows_without_entries_are_like_nothing(shape: tuple[int, int]) -> None:
    assert found(Heads(csr_matrix(shape, dtype=np.float32), 0.5)) == {}
