"""Which domains are alike, by the words of what they are trained on: cosine of TF-IDF vectors (Salton and Buckley 1988)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.nearest import nearest

READ_BYTES = 200_000
"""Of each source: enough words to tell domains apart, also of a source of gigabytes."""


class Similar(NamedTuple):
    """Another domain, and how alike it is: 1 for the same words as often, 0 for none in common."""

    domain: str
    similarity: float


def similar_domains(graph: Graph, domain: str, count: int = 5) -> list[Similar]:
    """The domains of this build that are most like one of them, the most similar first.

    Raises:
        ConfigError: there is no such domain in this build.
    """
    if domain not in graph.domains:
        raise ConfigError(f"unknown domain '{domain}'{nearest(domain, graph.domains)}")
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {name: _text(graph.step("dataset", name).sources) for name in graph.domains}
    vectors = TfidfVectorizer(sublinear_tf=True, max_df=0.9 if len(texts) > 3 else 1.0).fit_transform(texts.values())
    cosines = (vectors @ vectors[list(texts).index(domain)].T).toarray().ravel()
    found = [
        Similar(name, round(float(cosine), 4)) for name, cosine in zip(texts, cosines, strict=True) if name != domain
    ]
    return sorted(found, key=lambda other: (-other.similarity, other.domain))[:count]


def _text(sources: Mapping[str, str]) -> str:
    found = []
    for path in map(Path, sources.values()):
        if path.is_file():
            with path.open("rb") as file:
                found.append(file.read(READ_BYTES).decode("utf-8", "replace"))
    return "\n".join(found) or "nothing"
