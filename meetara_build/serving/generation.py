"""An answer: which token comes next, when it ends, and its text as it grows."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from meetara_build.llama_cpp.answering import Adapter, Answering, Choose
from meetara_build.llama_cpp.generation import has_looped
from meetara_build.llama_cpp.model import Floats

Reason = Literal["stop", "length"]


class Sampling(NamedTuple):
    """How tokens are drawn, and when to stop: at ``temperature`` 0 the likeliest one; else among
    those that together have ``top_p`` of the likelihood, the same for the same ``seed``."""

    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class End(NamedTuple):
    """How an answer ended: by itself or a stop text, or cut; and how many tokens it has."""

    reason: Reason
    tokens: int


def write_text(
    answering: Answering,
    prompt: Sequence[int],
    adapter: Adapter | None,
    sampling: Sampling,
    is_wanted: Callable[[], bool],
) -> Iterator[str | End]:
    """The pieces of an answer, each whole characters, and then its end; it ends early once nobody
    wants it.

    Greedily, an answer that says the same over and over is cut: it would for ever.

    Raises:
        ArtifactError: llama.cpp fails to decode.
    """
    text, said = _Text(sampling.stop), list[int]()
    for token in answering.write(prompt, adapter, make_choice(sampling)):
        if not is_wanted():
            return
        if token < 0:
            continue
        if answering.model.is_end(token) or answering.model.is_control(token):
            yield text.finish()
            yield End("stop", len(said))
            return
        said.append(token)
        if piece := text.add(answering.model.bytes_of(token)):
            yield piece
        if text.stopped:
            yield End("stop", len(said))
            return
        if len(said) >= sampling.tokens or (sampling.temperature == 0.0 and has_looped(said)):
            break
    yield text.finish()
    yield End("length", len(said))


def make_choice(sampling: Sampling) -> Choose:
    """What draws the next token of one answer."""
    if sampling.temperature == 0.0:
        return lambda logits: int(np.argmax(logits))
    source = np.random.default_rng(sampling.seed)

    def draw(logits: Floats) -> int:
        scaled = logits.astype(np.float64) / sampling.temperature
        likely = np.exp(scaled - scaled.max())
        likely /= likely.sum()
        if sampling.top_p < 1.0:
            order = np.argsort(-likely, kind="stable")
            kept = int(np.searchsorted(np.cumsum(likely[order]), sampling.top_p)) + 1
            likely[order[kept:]] = 0.0
            likely /= likely.sum()
        return int(source.choice(len(likely), p=likely))

    return draw


class _Text:
    """The text of an answer, up to the first of some stop texts."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = stop
        self.stopped = False
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""

    def add(self, raw: bytes) -> str:
        """What can be told now: nothing of it is a part of a character or of a stop text."""
        self._held += self._decode(raw)
        found = [at for stop in self.stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            told, self._held = self._held[: min(found)], ""
            return told
        keep = max((self._count_begun(stop) for stop in self.stop), default=0)
        told, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return told

    def finish(self) -> str:
        """What was held back."""
        told, self._held = self._held + self._decode(b"", True), ""
        return told

    def _count_begun(self, stop: str) -> int:
        """How many characters of a stop text the text ends with."""
        most = min(len(stop) - 1, len(self._held))
        return next((count for count in range(most, 0, -1) if self._held.endswith(stop[:count])), 0)
