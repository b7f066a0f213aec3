"""Records as token ids: the model's own chat template, and which tokens the model itself has to
say."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from meetara_build.errors import DataError
from meetara_build.outside import parse_json, show_line
from meetara_build.training.transformers_internals import set_template_date
from meetara_build.training.turns import (
    Control,
    Controls,
    Message,
    Piece,
    is_control,
    place_system_text,
    takes_system,
    write_date,
)

_MARK = "\ue002"
"""A character for private use, which stands for an answer that no template contains."""

_AT_ONCE = 1000
"""Conversations that are tokenized in one call: what bounds memory."""

Turns = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Encoded:
    """One conversation as token ids.

    Attributes:
        mask: true where a token belongs to an assistant's turn that is learnt.
        never: the places of tokens that are not learnt even where prompts are: those of turns that
            are marked so.
    """

    ids: list[int]
    mask: list[bool]
    never: frozenset[int] = frozenset()

    @property
    def completion_tokens(self) -> int:
        """How many tokens the loss counts; the very first token of a text can never be
        predicted."""
        return sum(self.mask[1:])


def write(tokenizer: PreTrainedTokenizerBase, turns: Turns, *, ask: bool = False) -> str:
    """What the chat template makes of turns as they are; ``ask`` ends it where the assistant's
    answer would begin.

    Raises:
        Exception: whatever the template raises, as for a role that it does not take.
    """
    set_template_date(tokenizer, write_date)
    return str(
        tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], tokenize=False, add_generation_prompt=ask
        )
    )


def render(tokenizer: PreTrainedTokenizerBase, messages: Turns, *, ask: bool = False) -> str:
    """The conversation as the model reads it; ``ask`` ends it where the assistant's answer would
    begin.

    Templates without a system role (Gemma's) get the system text at the head of the first user
    turn.
    """
    base = _base(tokenizer, str(tokenizer.chat_template))
    return base.controls.restore(base.render(base.controls.hide(messages), ask=ask))


def encode(tokenizer: PreTrainedTokenizerBase, messages: Turns) -> Encoded:
    """Token ids of a conversation, and which of them are an assistant's.

    Raises:
        DataError: the chat template cannot write the conversation, or its last answer cannot be
            told from what stands before it.
    """
    encoded = next(encode_all(tokenizer, [messages]))
    if isinstance(encoded, DataError):
        raise encoded
    return encoded


def encode_all(
    tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Turns]
) -> Iterator[Encoded | DataError]:
    """Each conversation as ``encode`` gives it, or the error that it raises, faster than one by
    one."""
    base, waiting = _base(tokenizer, str(tokenizer.chat_template)), iter(conversations)
    while some := list(islice(waiting, _AT_ONCE)):
        split = [base.split(messages) for messages in some]
        pieces = [
            part.piece for parts in split if not isinstance(parts, DataError) for part in parts
        ]
        ids = iter(base.tokenize(pieces))
        for parts in split:
            yield (
                parts
                if isinstance(parts, DataError)
                else base.join([(part, next(ids)) for part in parts])
            )


def read_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text in which control tokens are text."""
    return _base(tokenizer, str(tokenizer.chat_template)).read_plain(text)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an assistant's turn: the first added token after an answer, but for
    space. None where the chat template writes none there, so that no model on this base can learn
    to stop."""
    answered = render(
        tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}]
    )
    after = answered.partition(_MARK)[2]
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in tokenizer(after, add_special_tokens=False)["input_ids"]:
        if token in added and str(tokenizer.decode([token])).strip():
            return int(token)
        if str(tokenizer.decode([token])).strip():
            return None
    return None


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a dataset's ``train.jsonl``, ``validation.jsonl`` or ``test.jsonl``."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield parse_json(line)


class _Text(NamedTuple):
    """Part of a rendered conversation: whether it is an answer that is learnt, and whether it is
    not learnt even where prompts are."""

    text: str
    learnt: bool
    never: bool


class _Part(NamedTuple):
    """The same cut further."""

    piece: Piece
    learnt: bool
    never: bool


class _Base:
    """A base's tokenizer and template, with what is worked out of them once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.control_ids = {
            number for number, token in added.items() if is_control(token.content, token.special)
        }
        tokens = [added[number] for number in sorted(self.control_ids)]
        self.controls = Controls(
            Control(token.content, token.lstrip, token.rstrip) for token in tokens
        )
        self.takes_system = takes_system(partial(write, tokenizer))

    @cached_property
    def read_plain(self) -> Callable[[str], list[int]]:
        """Reads control tokens as text, also those that are not marked as special."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python
            return partial(
                self.tokenizer.encode, add_special_tokens=False, split_special_tokens=True
            )
        written = json.loads(backend.to_str())
        for token in written["added_tokens"]:
            token["special"] = token["id"] in self.control_ids
        plain = Tokenizer.from_str(json.dumps(written))
        plain.encode_special_tokens = True
        return lambda text: list(plain.encode(text, add_special_tokens=False).ids)

    def render(self, turns: Sequence[Message], *, ask: bool = False) -> str:
        """What the template makes of hidden turns."""
        return write(self.tokenizer, place_system_text(turns, self.takes_system), ask=ask)

    def split(self, messages: Turns) -> list[_Part] | DataError:
        """The conversation as pieces; an error where it cannot be written or split."""
        turns = self.controls.hide(messages)
        learnt = [turn.get("learn", True) for turn in messages]
        try:
            texts = self._by_turns(turns, learnt) or self._last_answer(turns, learnt)
        except Exception as error:  # templates raise whatever Jinja function they like
            reason = show_line(str(error).strip() or type(error).__name__)
            return DataError(
                f"the base's chat template cannot write it ({reason}): change its turns, or mend "
                "the template"
            )
        if texts is None:
            return DataError(
                "the base's chat template rewrites what stands before the last answer, so the "
                "answer's tokens cannot be told apart: use records of one question and one "
                "answer, or a base with another template"
            )
        return [
            _Part(piece, one.learnt, one.never)
            for one in texts
            for piece in self.controls.cut_pieces(one.text)
        ]

    def _by_turns(self, turns: Sequence[Message], learnt: Sequence[bool]) -> list[_Text] | None:
        """The text before each answer, and each answer; None where the template writes earlier
        turns otherwise once others follow."""
        whole = self.render(turns)
        texts: list[_Text] = []
        written = ""
        for end, turn in enumerate(turns, 1):
            if turn["role"] != "assistant":
                continue
            asked = self.render(turns[: end - 1], ask=True)
            answered = whole if end == len(turns) else self._keep(self.render(turns[:end]), whole)
            if not (
                asked.startswith(written)
                and answered.startswith(asked)
                and whole.startswith(answered)
            ):
                return None
            said = learnt[end - 1]
            texts += [
                _Text(asked[len(written) :], False, False),
                _Text(answered[len(asked) :], said, not said),
            ]
            written = answered
        return texts

    def _keep(self, answered: str, whole: str) -> str:
        """The text up to an answer without the control tokens that a template writes only where
        nothing follows (Phi 3's)."""
        while not whole.startswith(answered) and (token := self.controls.find_ending(answered)):
            answered = answered.removesuffix(token)
        return answered

    def _last_answer(self, turns: Sequence[Message], learnt: Sequence[bool]) -> list[_Text] | None:
        """All that stands before the last answer that is learnt, as where it is asked for, and that
        answer.

        Templates that leave out the system text once an answer follows (Mistral's) write the answer
        as without it.
        """
        last = max(
            (at for at, turn in enumerate(turns) if turn["role"] == "assistant" and learnt[at]),
            default=None,
        )
        if last is None:
            return None
        question = turns[:last]
        asked = self.render(question, ask=True)
        for start in (0, 1) if turns[0]["role"] == "system" else (0,):
            before, whole = (
                self.render(question[start:], ask=True),
                self.render(turns[start : last + 1]),
            )
            if whole.startswith(before):
                return [
                    _Text(asked, False, not all(learnt[:last])),
                    _Text(whole[len(before) :], True, False),
                ]
        return None

    def tokenize(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """The ids of each piece."""
        special = [piece.text for piece in pieces if piece.special]
        read = iter(
            self.tokenizer(special, add_special_tokens=False)["input_ids"] if special else []
        )
        return [
            list(next(read)) if piece.special else self.read_plain(piece.text) for piece in pieces
        ]

    def join(self, parts: Sequence[tuple[_Part, list[int]]]) -> Encoded | DataError:
        """Pieces and their ids as one conversation; an error where a text cannot be written without
        a control token."""
        ids: list[int] = []
        mask: list[bool] = []
        never: list[int] = []
        for part, read in parts:
            if not part.piece.special and (odd := self.control_ids.intersection(read)):
                token = self.tokenizer.decode([min(odd)])
                return DataError(
                    f"the base's tokenizer cannot write {token!r} as plain text: take it out of "
                    "the record"
                )
            never += range(len(ids), len(ids) + len(read)) if part.never else ()
            ids += read
            mask += [part.learnt] * len(read)
        return Encoded(ids, mask, frozenset(never))


@lru_cache(maxsize=4)
def _base(tokenizer: PreTrainedTokenizerBase, _: str) -> _Base:
    """What was worked out of a tokenizer, as long as its template, the second, stays."""
    return _Base(tokenizer)
