"""How alike texts are, by their words: cosine of TF-IDF vectors (Salton and Buckley 1988)."""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

COMMON = 0.9
"""A word that more texts have than this share of them tells none apart, where there are more than a
few."""
FEW = 3


class Similar(NamedTuple):
    """Another text, of a domain's data, and how alike it is: 1 for the same, 0 for nothing in
    common."""

    domain: str
    similarity: float


def likeness(texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """For each two texts, by name: 1 for the same words as often, 0 for none in common."""
    if not texts:
        return {}
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = None
    for most in (COMMON, 1.0) if len(texts) > FEW else (1.0,):
        with contextlib.suppress(
            ValueError
        ):  # no word is left: of texts that are all the same, or have none
            vectors = TfidfVectorizer(sublinear_tf=True, max_df=most).fit_transform(texts.values())
            break
    if vectors is None:
        return {name: dict.fromkeys(texts, 0.0) for name in texts}
    cosines = (vectors @ vectors.T).toarray().round(4)
    return {
        name: dict(zip(texts, map(float, row), strict=True))
        for name, row in zip(texts, cosines, strict=True)
    }


def rank_similar(name: str, row: Mapping[str, float], count: int) -> list[Similar]:
    """Of the others in a row of similarities, the first few, the most similar first."""
    found = [Similar(other, cosine) for other, cosine in row.items() if other != name]
    return sorted(found, key=lambda one: (-one.similarity, one.domain))[:count]
