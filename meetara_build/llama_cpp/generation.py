"""Answers to several questions, written side by side, and given answers weighed: a step of the
model costs little more for eight texts than for one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from llama_cpp import llama_cpp as ll

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.model import Floats, Model, last_words

AT_ONCE = 8
"""Questions side by side: what bounds memory."""
STEP = 512
"""Tokens of one decoding step."""
ASKED = 64
"""Of them those after which logits are wanted, where all are: a row has the whole vocabulary."""


LONGEST_LOOP, TIMES, FEWEST = 16, 3, 24
"""Tokens that are said over and over, how often, and how many in all: greedily, what has come round so
often comes round for ever."""


class Question(NamedTuple):
    """The tokens of a prompt, and answers that it might have, of which each is weighed."""

    prompt: Sequence[int]
    choices: Sequence[Sequence[int]] = ()


class Written(NamedTuple):
    """An answer: its tokens, and whether the model ended it by itself, and was neither cut nor went
    round in a loop; and of each choice the mean negative log-likelihood of its tokens after the
    prompt, in nats."""

    tokens: list[int]
    ended: bool
    nats: tuple[float, ...] = ()


def write_answers(
    model: Model,
    questions: Sequence[Question],
    count: int,
    *,
    threads: int,
    lora: Path | None = None,
) -> list[Written]:
    """For each question the up to ``count`` tokens that most likely follow, until the model ends its
    turn or goes round in a loop, and how likely its choices are; ``lora`` is an adapter on the
    model.

    The same file, questions and number of threads give the same answers.

    Raises:
        ArtifactError: llama.cpp cannot make room for them, or fails to decode.
        ProofError: it cannot load the adapter.
        ValueError: a prompt, or a choice, without a token.
    """
    if not all(all([question.prompt, *question.choices]) for question in questions):
        raise ValueError("a prompt or a choice without a token cannot be read")
    found = list[Written]()
    for start in range(0, len(questions), AT_ONCE):
        some = questions[start : start + AT_ONCE]
        with _Texts(model, some, count, threads) as texts:
            if lora is not None:
                model.add_adapter(texts.context, lora, 1.0)
            found += texts.answer(count)
    return found


class _Place(NamedTuple):
    """A token that is read: in which sequence, at which position, and whether it asks what
    follows."""

    token: int
    text: int
    position: int
    asks: bool


class _Texts:
    """Some questions in one context, each prompt a sequence of its own, and each choice a copy of it
    that goes on; what all prompts begin with is read once."""

    def __init__(
        self, model: Model, questions: Sequence[Question], count: int, threads: int
    ) -> None:
        self.model = model
        self.prompts = [question.prompt for question in questions]
        self.choices = [
            (text, choice) for text, question in enumerate(questions) for choice in question.choices
        ]
        params = ll.llama_context_default_params()
        params.n_ctx = sum(map(len, self.prompts)) + max(
            len(self.prompts) * count, sum(len(choice) for _, choice in self.choices)
        )
        params.n_batch = params.n_ubatch = STEP
        params.n_seq_max = len(self.prompts) + len(self.choices)
        params.kv_unified = True  # sequences may share the cells of what they begin with
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = model.open_context(params)
        self._memory = ll.llama_get_memory(self.context)
        self._batch = ll.llama_batch_init(STEP, 0, 1)

    def __enter__(self) -> "_Texts":
        return self

    def __exit__(self, *_: object) -> None:
        ll.llama_batch_free(self._batch)
        ll.llama_free(self.context)

    def answer(self, count: int) -> list[Written]:
        """All answers, and all choices weighed."""
        rows = self._read_prompts()
        nats = self._weigh_choices(rows)
        following = {text: int(np.argmax(row)) for text, row in rows.items()}
        said: list[list[int]] = [[] for _ in self.prompts]
        ended = [False] * len(said)
        while following:
            asked = list[_Place]()
            for text, token in following.items():
                ended[text] = self.model.is_end(token)
                if ended[text]:
                    continue
                said[text].append(token)
                if len(said[text]) < count and not has_looped(said[text]):
                    position = len(self.prompts[text]) + len(said[text]) - 1
                    asked.append(_Place(token, text, position, asks=True))
            following = {place.text: int(np.argmax(row)) for place, row in self._read(asked)}
        return [Written(*answer) for answer in zip(said, ended, nats, strict=True)]

    def _read_prompts(self) -> dict[int, Floats]:
        """Read all prompts; by text the logits of what follows."""
        shared = count_shared(self.prompts)
        list(self._read([_Place(self.prompts[0][at], 0, at, asks=False) for at in range(shared)]))
        for text in range(1, len(self.prompts)):
            ll.llama_memory_seq_cp(self._memory, 0, text, -1, -1)
        places = [
            _Place(prompt[at], text, at, asks=at == len(prompt) - 1)
            for text, prompt in enumerate(self.prompts)
            for at in range(shared, len(prompt))
        ]
        return {place.text: row.copy() for place, row in self._read(places)}

    def _weigh_choices(self, rows: dict[int, Floats]) -> list[tuple[float, ...]]:
        """By text the mean negative log-likelihood of each choice; nothing of them stays."""
        first = len(self.prompts)
        sums = [count_nats(rows[text], choice[0]) for text, choice in self.choices]
        places = list[_Place]()
        for at, (text, choice) in enumerate(self.choices):
            ll.llama_memory_seq_cp(self._memory, text, first + at, -1, -1)
            start = len(self.prompts[text])
            places += [
                _Place(token, first + at, start + position, asks=True)
                for position, token in enumerate(choice[:-1])
            ]
        for place, row in self._read(places, ASKED):
            text, choice = self.choices[place.text - first]
            said = choice[place.position - len(self.prompts[text]) + 1]
            sums[place.text - first] += count_nats(row, said)
        found: list[tuple[float, ...]] = [()] * first
        for at, (text, choice) in enumerate(self.choices):
            ll.llama_memory_seq_rm(self._memory, first + at, -1, -1)
            found[text] += (sums[at] / len(choice),)
        return found

    def _read(self, places: Sequence[_Place], step: int = STEP) -> Iterator[tuple[_Place, Floats]]:
        """Put tokens through the model; of each that asks the logits of what follows, a view that
        lasts until the next step."""
        for some in _cut(places, step):
            self._decode(some)
            for at, place in enumerate(some):
                if place.asks:
                    pointer = ll.llama_get_logits_ith(self.context, at)
                    yield place, np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,))

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


def has_looped(tokens: Sequence[int]) -> bool:
    """Whether a text ends with the same few tokens over and over."""
    for period in range(1, LONGEST_LOOP + 1):
        seen = max(TIMES * period, FEWEST)
        last = tokens[-seen:]
        if len(last) == seen and last[period:] == last[:-period]:
            return True
    return False


def count_nats(logits: Floats, token: int) -> float:
    """The negative log-likelihood of a token, in nats; sums are taken in float64."""
    largest = logits.max()
    total = np.exp(logits - largest).sum(dtype=np.float64)
    return float(np.log(total) - np.float64(logits[token] - largest))


def _cut(places: Sequence[_Place], step: int) -> Iterator[Sequence[_Place]]:
    """In steps of at most so many tokens."""
    step = min(step, STEP)
    starts = [*range(0, len(places), step), len(places)]
    for start, end in pairwise(starts):
        yield places[start:end]
