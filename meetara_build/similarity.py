"""Which domains are alike, by the words of what they are trained on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.likeness import likeness
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
    row = similarities({name: [*map(Path, graph.step("dataset", name).sources.values())] for name in graph.domains})[
        domain
    ]
    found = [Similar(name, cosine) for name, cosine in row.items() if name != domain]
    return sorted(found, key=lambda other: (-other.similarity, other.domain))[:count]


def similarities(sources: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, float]]:
    """How alike each two domains are, by name, from the files of their records."""
    return likeness({name: _text(files) for name, files in sources.items()})


def _text(files: Iterable[Path]) -> str:
    found = []
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                found.append(file.read(READ_BYTES).decode("utf-8", "replace"))
    return "\n".join(found) or "nothing"
