"""What the bases of a build are taken back from, where that is a GGUF file: what quantizing lost
there, every model on it lacks."""

from collections.abc import Iterable
from typing import NamedTuple

from meetara_build.errors import MeetaraError
from meetara_build.graph import Graph, Step
from meetara_build.setup.originals import Original, find_kept_file
from meetara_build.store.manifest import read_manifest


class BaseOrigin(NamedTuple):
    """A base, the GGUF file that it is taken back from, and what that is quantized to: None where
    it is not, or not known yet."""

    base: str
    file: str
    quantized: str | None

    def text(self) -> str:
        """In a sentence."""
        lost = f", which is quantized to {self.quantized}" if self.quantized else ""
        return f"Base {self.base}: taken back from {self.file}{lost}."


def base_origins(graph: Graph, domains: Iterable[str] = ()) -> list[BaseOrigin]:
    """Those of the bases that these domains, or all, are built on."""
    steps = (
        step
        for step in graph.above(graph.ends(domains))
        if step.stage == "base" and step.recipe["gguf"]
    )
    return [
        BaseOrigin(
            step.recipe["name"],
            step.recipe["gguf"]["file"].rpartition("/")[2],
            _read_built(graph, step) or _in_file(step),
        )
        for step in steps
    ]


def _read_built(graph: Graph, step: Step) -> str | None:
    """What the base's own manifest says."""
    try:
        found: str | None = read_manifest(graph.root / step.place.manifest).metrics.get("quantized")
    except MeetaraError:
        return None
    return found


def _in_file(step: Step) -> str | None:
    """What the file says, if it is on this machine."""
    path = find_kept_file(Original(**step.recipe["gguf"]), step.sources)
    if path is None:
        return None
    from meetara_build.llama_cpp.header import header

    try:
        return header(path).quantized
    except MeetaraError:  # the base stage says what is wrong with it
        return None
