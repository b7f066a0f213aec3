"""How alike texts are, by their words: cosine of TF-IDF vectors (Salton and Buckley 1988)."""

from collections.abc import Mapping


def likeness(texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """For each two texts, by name: 1 for the same words as often, 0 for none in common."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True, max_df=0.9 if len(texts) > 3 else 1.0).fit_transform(texts.values())
    cosines = (vectors @ vectors.T).toarray().round(4)
    return {name: dict(zip(texts, map(float, row), strict=True)) for name, row in zip(texts, cosines, strict=True)}
