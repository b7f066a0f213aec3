"""Which domains are alike, by what they are trained on: the words of it, or its meaning where
build.yaml names an embedding model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from meetara_build.config.resolve import Configuration
from meetara_build.errors import ConfigError, DataError, nearest
from meetara_build.graph import TOOL, Graph
from meetara_build.stages.text_similarity import Similar, likeness, rank_similar
from meetara_build.store.digests import list_files
from meetara_build.store.manifest import digest_json
from meetara_build.store.memo import Memo

RECORDS, LETTERS = 2_000, 200_000
"""Of each domain at most: enough words to tell domains apart, also of a source of gigabytes."""
PASSAGES = 48
"""Lines of a domain whose meaning is taken, spread over all of them."""
ENOUGH_FOR_MIDDLE = 8
"""Domains from which what all of them have in common is left out, as TF-IDF leaves out common
words."""
KEPT = "similarities.json"
"""Where what was worked out is kept, below the root: similarities by words, or the embeddings of
domains."""


def similar_domains(graph: Graph, domain: str, count: int = 5) -> list[Similar]:
    """The domains of this build that are most like one of them, the most similar first.

    Raises:
        ConfigError: there is no such domain in this build, or the embedding model cannot be had.
    """
    if domain not in graph.domains:
        raise ConfigError(f"unknown domain '{domain}'{nearest(domain, graph.domains)}")
    sources = {
        name: [*map(Path, graph.step("dataset", name).sources.values())] for name in graph.domains
    }
    model = Configuration(graph.project).build.agents.embedding_model
    return rank_similar(domain, similarities(sources, model, graph.root)[domain], count)


def similarities(
    sources: Mapping[str, Sequence[Path]], model: str | None = None, root: Path | None = None
) -> dict[str, dict[str, float]]:
    """How alike each two domains are, by name, from the files of their records.

    By their words or, where ``root`` is given, by ``model``, a Sentence-Transformers model's folder
    or name; what was worked out is kept below ``root``. What cannot be read as records is like
    nothing: 0.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    texts = {name: text for name, files in sources.items() if (text := _text(files))}
    found = _compare(texts, model, root)
    return {
        name: {other: found.get(name, {}).get(other, 0.0) for other in sources} for name in sources
    }


def _compare(
    texts: Mapping[str, str], model: str | None, root: Path | None
) -> dict[str, dict[str, float]]:
    if root is None:
        return likeness(texts)
    memo = Memo(root / KEPT, [model, TOOL])
    found: dict[str, dict[str, float]]
    if model is None:
        found = memo.get(digest_json(texts), partial(likeness, texts))
    else:
        found = _by_meaning(texts, Encoder(model), memo)
    memo.save()
    return found


def _text(sources: Iterable[Path]) -> str:
    """What the first records of a domain say, whatever form they are kept in; nothing, where it
    cannot be read as records."""
    texts, letters = list[str](), 0
    for record in islice(_records(sources), RECORDS):
        line = " ".join(_texts(record))
        texts.append(line)
        letters += len(line)
        if letters > LETTERS:
            break
    return "\n".join(texts)[:LETTERS]


def _records(sources: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    """Records as the dataset stage reads them; of a folder of shards, those of the files in it."""
    from meetara_build.stages.dataset.sources import read_source
    from meetara_build.stages.dataset.tables import is_saved
    from meetara_build.stages.recipes.preparation import SourceRecipe

    for source in sources:
        with suppress(OSError):  # the plan says what is wrong with it
            shards = source.is_dir() and not is_saved(source)
            for part in map(Path, list_files(source)) if shards else [source]:
                with suppress(DataError):
                    found = read_source(SourceRecipe(name=part.name, limit=RECORDS), part)
                    yield from (row.values for row in found.rows)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a record, wherever they stand in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for held in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(held)


def _by_meaning(
    texts: Mapping[str, str], encoder: "Encoder", memo: Memo
) -> dict[str, dict[str, float]]:
    """Cosine of the domains' mean embeddings; of many, less the middle of all, and 0 for what lies
    on its other side."""
    import numpy as np

    passages = {name: _spread(text) for name, text in texts.items()}
    vectors = np.array(
        [memo.get(digest_json(lines), partial(encoder.mean, lines)) for lines in passages.values()]
    )
    if len(vectors) >= ENOUGH_FOR_MIDDLE:
        vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
    cosines = (vectors @ vectors.T).clip(0.0, 1.0).round(4)
    return {
        name: dict(zip(texts, map(float, row), strict=True))
        for name, row in zip(texts, cosines, strict=True)
    }


def _spread(text: str) -> list[str]:
    """So many of its lines at most, evenly spread."""
    lines = [line for line in text.splitlines() if line.strip()] or [text]
    return lines[:: -(-len(lines) // PASSAGES)]


class Encoder:
    """An embedding model that is loaded when it is first needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: Any = None

    def encode(self, lines: Sequence[str]) -> Any:
        """The unit embeddings of these lines, shape (lines, width).

        Raises:
            ConfigError: the model cannot be loaded.
        """
        self.model = self.model or self._load()
        return self.model.encode(list(lines), normalize_embeddings=True, show_progress_bar=False)

    def mean(self, lines: Sequence[str]) -> list[float]:
        """The mean of the unit embeddings of these lines."""
        return [round(float(value), 6) for value in self.encode(lines).mean(axis=0)]

    def _load(self) -> Any:
        where = "conf/build.yaml: agents.embedding_model"
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigError(
                f"{where}: sentence-transformers is not installed; get it with "
                "`pip install 'meetara-build[embeddings]'`, or set it to null"
            ) from None
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            return SentenceTransformer(self.name, device="cpu", local_files_only=True)
        except (OSError, ValueError) as fault:
            said = str(fault).strip().splitlines()
            raise ConfigError(
                f"{where}: '{self.name}' cannot be loaded: "
                f"{said[0] if said else type(fault).__name__}; give the folder of a "
                "Sentence-Transformers model, or the name of one that is downloaded"
            ) from None
