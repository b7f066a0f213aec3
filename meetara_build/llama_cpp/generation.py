"""Several answers written side by side: a step of the model costs little more for eight texts than
for one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from llama_cpp import llama_cpp as ll

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.model import Model, last_words

AT_ONCE = 8
"""Texts side by side: what bounds memory."""
STEP = 512
"""Tokens of one decoding step."""


class Written(NamedTuple):
    """An answer: its tokens, and whether the model ended it by itself."""

    tokens: list[int]
    ended: bool


def write_answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    threads: int,
    lora: Path | None = None,
) -> list[Written]:
    """For each prompt the up to ``count`` tokens that most likely follow, until the model ends its
    turn; ``lora`` is an adapter on the model.

    The same file, prompts and number of threads give the same answers.

    Raises:
        ArtifactError: llama.cpp cannot make room for them, or fails to decode.
        ProofError: it cannot load the adapter.
        ValueError: a prompt without a token.
    """
    if not all(prompts):
        raise ValueError("a prompt without a token has no answer")
    found = list[Written]()
    for start in range(0, len(prompts), AT_ONCE):
        some = prompts[start : start + AT_ONCE]
        with _Texts(model, some, count, threads) as texts:
            if lora is not None:
                model.add_adapter(texts.context, lora, 1.0)
            found += texts.write(count)
    return found


class _Place(NamedTuple):
    """A token that is read: of which text, at which position, and whether it asks what follows."""

    token: int
    text: int
    position: int
    asks: bool


class _Texts:
    """Some prompts in one context, each a sequence of its own; what all begin with is read once."""

    def __init__(
        self, model: Model, prompts: Sequence[Sequence[int]], count: int, threads: int
    ) -> None:
        self.model, self.prompts = model, prompts
        params = ll.llama_context_default_params()
        params.n_ctx = sum(map(len, prompts)) + len(prompts) * count
        params.n_batch = params.n_ubatch = STEP
        params.n_seq_max = len(prompts)
        params.kv_unified = True  # sequences may share the cells of what they begin with
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = model.open_context(params)
        self._batch = ll.llama_batch_init(STEP, 0, 1)

    def __enter__(self) -> "_Texts":
        return self

    def __exit__(self, *_: object) -> None:
        ll.llama_batch_free(self._batch)
        ll.llama_free(self.context)

    def write(self, count: int) -> list[Written]:
        """All answers."""
        said: list[list[int]] = [[] for _ in self.prompts]
        ended = [False] * len(said)
        following = self._read_prompts()
        while following:
            asked = list[_Place]()
            for text, token in following.items():
                ended[text] = self.model.is_end(token)
                if ended[text]:
                    continue
                said[text].append(token)
                if len(said[text]) < count:
                    position = len(self.prompts[text]) + len(said[text]) - 1
                    asked.append(_Place(token, text, position, asks=True))
            following = self._read(asked)
        return [Written(*answer) for answer in zip(said, ended, strict=True)]

    def _read_prompts(self) -> dict[int, int]:
        """Read all prompts; the token that most likely follows each."""
        shared = count_shared(self.prompts)
        self._read([_Place(self.prompts[0][at], 0, at, asks=False) for at in range(shared)])
        memory = ll.llama_get_memory(self.context)
        for text in range(1, len(self.prompts)):
            ll.llama_memory_seq_cp(memory, 0, text, -1, -1)
        return self._read(
            [
                _Place(prompt[at], text, at, asks=at == len(prompt) - 1)
                for text, prompt in enumerate(self.prompts)
                for at in range(shared, len(prompt))
            ]
        )

    def _read(self, places: Sequence[_Place]) -> dict[int, int]:
        """Put tokens through the model; by text the token that most likely follows, where asked."""
        found = {}
        for some in _cut(places):
            self._decode(some)
            for at, place in enumerate(some):
                if place.asks:
                    pointer = ll.llama_get_logits_ith(self.context, at)
                    row = np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,))
                    found[place.text] = int(np.argmax(row))
        return found

    def _decode(self, places: Sequence[_Place]) -> None:
        batch = self._batch
        batch.n_tokens = len(places)
        for at, place in enumerate(places):
            batch.token[at], batch.pos[at] = place.token, place.position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, place.text
            batch.logits[at] = place.asks
        if (code := ll.llama_decode(self.context, batch)) != 0:
            raise ArtifactError(
                f"{self.model.path.name}: llama.cpp failed to decode (code {code}): {last_words()}"
            )


def count_shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps one of its own, which asks what
    follows."""
    most = min(map(len, prompts)) - 1
    same = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return min(most, sum(1 for _ in same))


def _cut(places: Sequence[_Place]) -> Iterator[Sequence[_Place]]:
    """In steps of at most ``STEP`` tokens."""
    starts = [*range(0, len(places), STEP), len(places)]
    for start, end in pairwise(starts):
        yield places[start:end]
