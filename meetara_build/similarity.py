"""Which domains are alike, by what they are trained on: the words of it, or its meaning where build.yaml names an embedding model."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.artifact import digest_json
from meetara_build.errors import ConfigError
from meetara_build.graph import TOOL, Graph
from meetara_build.likeness import likeness
from meetara_build.memo import Memo
from meetara_build.nearest import nearest
from meetara_build.resolve import Configuration

READ_BYTES = 200_000
"""Of each source: enough words to tell domains apart, also of a source of gigabytes."""
PASSAGES = 48
"""Lines of a domain whose meaning is taken, spread over all of them."""
ENOUGH_FOR_MIDDLE = 8
"""Domains from which what all of them have in common is left out, as TF-IDF leaves out common words."""
KEPT = "similarities.json"
"""Where what was worked out is kept, below the root: similarities by words, or the embeddings of domains."""


class Similar(NamedTuple):
    """Another domain, and how alike it is: 1 for the same, 0 for nothing in common."""

    domain: str
    similarity: float


def similar_domains(graph: Graph, domain: str, count: int = 5) -> list[Similar]:
    """The domains of this build that are most like one of them, the most similar first.

    Raises:
        ConfigError: there is no such domain in this build, or the embedding model cannot be had.
    """
    if domain not in graph.domains:
        raise ConfigError(f"unknown domain '{domain}'{nearest(domain, graph.domains)}")
    sources = {name: [*map(Path, graph.step("dataset", name).sources.values())] for name in graph.domains}
    model = Configuration(graph.project).build.agents.embedding_model
    row = similarities(sources, model, graph.root)[domain]
    found = [Similar(name, cosine) for name, cosine in row.items() if name != domain]
    return sorted(found, key=lambda other: (-other.similarity, other.domain))[:count]


def similarities(
    sources: Mapping[str, Sequence[Path]], model: str | None = None, root: Path | None = None
) -> dict[str, dict[str, float]]:
    """How alike each two domains are, by name, from the files of their records.

    By their words or, where ``root`` is given, by ``model``, a Sentence-Transformers model's folder or name; what was worked out is
    kept below ``root``.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    texts = {name: _text(files) for name, files in sources.items()}
    if root is None:
        return likeness(texts)
    memo = Memo(root / KEPT, [model, TOOL])
    found: dict[str, dict[str, float]]
    if model is None:
        found = memo.get(digest_json(texts), partial(likeness, texts))
    else:
        found = _by_meaning(texts, _Encoder(model), memo)
    memo.save()
    return found


def _text(files: Iterable[Path]) -> str:
    found = []
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                found.append(file.read(READ_BYTES).decode("utf-8", "replace"))
    return "\n".join(found) or "nothing"


def _by_meaning(texts: Mapping[str, str], encoder: "_Encoder", memo: Memo) -> dict[str, dict[str, float]]:
    """Cosine of the domains' mean embeddings; of many, less the middle of all, and 0 for what lies on its other side."""
    import numpy as np

    passages = {name: _spread(text) for name, text in texts.items()}
    vectors = np.array([memo.get(digest_json(lines), partial(encoder.mean, lines)) for lines in passages.values()])
    if len(vectors) >= ENOUGH_FOR_MIDDLE:
        vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
    cosines = (vectors @ vectors.T).clip(0.0, 1.0).round(4)
    return {name: dict(zip(texts, map(float, row), strict=True)) for name, row in zip(texts, cosines, strict=True)}


def _spread(text: str) -> list[str]:
    """So many of its lines at most, evenly spread."""
    lines = [line for line in text.splitlines() if line.strip()] or [text]
    return lines[:: -(-len(lines) // PASSAGES)]


class _Encoder:
    """An embedding model that is loaded when it is first needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: Any = None

    def mean(self, lines: Sequence[str]) -> list[float]:
        """The mean of the unit embeddings of these lines."""
        self.model = self.model or self._load()
        found = self.model.encode(list(lines), normalize_embeddings=True, show_progress_bar=False).mean(axis=0)
        return [round(float(value), 6) for value in found]

    def _load(self) -> Any:
        where = "conf/build.yaml: agents.embedding_model"
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigError(
                f"{where}: sentence-transformers is not installed; `pip install sentence-transformers`, or set it to null"
            ) from None
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            return SentenceTransformer(self.name, device="cpu", local_files_only=True)
        except (OSError, ValueError) as fault:
            said = str(fault).strip().splitlines()
            raise ConfigError(
                f"{where}: '{self.name}' cannot be loaded: {said[0] if said else type(fault).__name__}; "
                "give the folder of a Sentence-Transformers model, or the name of one that is downloaded"
            ) from None
