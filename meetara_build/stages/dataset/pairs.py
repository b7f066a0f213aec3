"""All pairs of rows whose cosine reaches a threshold, without comparing each row with each other.

Put all columns in one order, those that few rows have first. The *head* of a row is its first
columns, as few as leave a length of at most s = t - SLACK to the rest, its tail. Take two rows with
cosine ≥ t, of which x has the head that ends first: all that they share up to there is in both
heads, and the rest, which is x's tail times something no longer than 1, is at most s. So their
heads alone have a product of at least t - s, which few pairs reach: those are compared in full.
Heads hold what few rows have, so that their products are few: a fiftieth of all for 20,000 records
of text. After R. Bayardo, Y. Ma and R. Srikant, Scaling up all pairs similarity search, WWW 2007.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST, GROWTH = 512, 1.25
"""Rows that are compared in the first round, and how much further each round goes: rows that are
gone by then cost nothing."""
BLOCK_PRODUCTS = 8_000_000
"""Products of two entries that a thread makes at once, about 100 MB."""
THREADS = 2
"""Blocks compared at a time; a product of sparse matrices holds no lock of Python."""
SLACK = 0.05
"""A larger one makes longer heads, and fewer pairs of them that promise more than they hold."""
MARGIN = 1e-4
"""More than float32 loses of a length or a cosine."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Heads:
    """The heads of all rows for a threshold.

    Attributes:
        vectors: the whole rows, a CSR matrix of rows of length 1 (or 0).
        heads: the same rows without their tails.
        tails: the length of each row's tail.
    """

    def __init__(self, vectors: Any, threshold: float) -> None:
        from scipy.sparse import csr_matrix

        rows, columns = vectors.shape
        rarity = np.argsort(
            np.argsort(np.bincount(vectors.indices, minlength=columns), kind="stable")
        )
        owner = np.repeat(np.arange(rows), np.diff(vectors.indptr))
        order = np.lexsort((rarity[vectors.indices], owner))
        # From a row's end: the energy of each entry and of all behind it.
        energy = np.cumsum(vectors.data[order][::-1].astype(np.float64) ** 2)[::-1]
        behind_row = np.append(energy, 0.0)[vectors.indptr[1:]]
        remaining = energy - behind_row[owner]
        is_head = remaining > max(0.0, threshold - SLACK) ** 2
        chosen = order[is_head]
        heads = (vectors.data[chosen], (owner[is_head], vectors.indices[chosen]))
        self.vectors, self.threshold = vectors, threshold
        self.heads = csr_matrix(heads, shape=vectors.shape)
        tail_energy = np.bincount(
            owner[~is_head], vectors.data[order[~is_head]].astype(np.float64) ** 2, minlength=rows
        )
        self.tails: Floats = np.sqrt(tail_energy).astype(np.float32)

    @property
    def products(self) -> float:
        """How many products of two entries it takes to find all pairs."""
        of_columns = np.bincount(self.heads.indices).astype(np.float64)
        return float((of_columns**2).sum())

    def pairs(
        self, tell: Callable[[float], None] = lambda share: None, gone: Bools | None = None
    ) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Pairs (later, earlier) with their cosine, a block of later rows at a time, in their
        order.

        Args:
            tell: hears which share of the rows has been compared.
            gone: rows that need not be found any more, which the caller may mark between two
                blocks.
        """
        for begin, end in _rounds(self.vectors.shape[0]):
            known = self.heads[:end] if gone is None else _without(self.heads[:end], gone[:end])
            columns = known.T.tocsr()
            compare = partial(self._compare, columns)
            with ThreadPoolExecutor(THREADS) as threads:
                for stop, found in threads.map(compare, _blocks(self.heads, columns, begin, end)):
                    tell(stop / self.vectors.shape[0])
                    yield found

    def _compare(
        self, columns: Any, block: tuple[int, int]
    ) -> tuple[int, tuple[Ints, Ints, Floats]]:
        """The pairs of a block's rows with earlier ones, and where the block ends; ``columns`` are
        the heads of those, turned."""
        start, stop = block
        product = self.heads[start:stop] @ columns
        # Of hundreds of millions of products few are large: no other array is made as long as they
        # are.
        large = np.flatnonzero(
            product.data >= self.threshold - self.tails.max(initial=0.0) - MARGIN
        )
        later = np.searchsorted(product.indptr, large, side="right") - 1 + start
        earlier = product.indices[large].astype(np.int64)
        least = self.threshold - np.maximum(self.tails[later], self.tails[earlier]) - MARGIN
        is_candidate = (earlier < later) & (product.data[large] >= least)
        later, earlier = later[is_candidate], earlier[is_candidate]
        cosines = cosines_of(self.vectors, later, earlier)
        reached = cosines >= self.threshold
        return stop, (later[reached], earlier[reached], cosines[reached])


def cosines_of(vectors: Any, left: Ints, right: Ints) -> Floats:
    """The cosine of each pair of rows."""
    parts = [
        np.asarray(
            vectors[left[at : at + 20_000]].multiply(vectors[right[at : at + 20_000]]).sum(axis=1)
        ).ravel()
        for at in range(0, len(left), 20_000)
    ]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def _rounds(rows: int) -> Iterator[tuple[int, int]]:
    begin, end = 0, FIRST
    while begin < rows:
        yield begin, min(end, rows)
        begin, end = end, end + max(1, int(end * (GROWTH - 1)))


def _without(rows: Any, gone: Bools) -> Any:
    """The rows, those that are gone without entries."""
    from scipy.sparse import diags

    kept = (diags((~gone).astype(np.float32)) @ rows).tocsr()
    kept.eliminate_zeros()
    return kept


def _blocks(heads: Any, columns: Any, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of rows from ``begin`` to ``end`` of about ``BLOCK_PRODUCTS`` products each."""
    rows_of = np.diff(columns.indptr)
    entries = heads[begin:end]
    before = np.append(0, np.cumsum(rows_of[entries.indices]))[entries.indptr]
    start = 0
    while start < end - begin:
        stop = int(np.searchsorted(before, before[start] + BLOCK_PRODUCTS, side="right")) - 1
        stop = min(max(stop, start + 1), end - begin)
        yield begin + start, begin + stop
        start = stop
