"""Turns as a chat template is given them, whoever renders and tokenizes: texts in them that are
control tokens' stay text.

A template's own control tokens and those that stand in a user's text look alike once both are one
string. So those in the texts are hidden before the template sees them, and what stands between two
tokens of the template is read as plain text where something was hidden in it. All other text is
read as it always was.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant", "content": text}``, and ``"learn": False`` in a turn
that is not to be learnt."""

TODAY = datetime(2024, 7, 26)
"""What a template that asks for today's date is told: else what is built would depend on the day.
It is the date that Llama 3.2's template writes where nobody tells it the day."""

_LOOK = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


class Control(NamedTuple):
    """A control token's text, and whether it takes the space before or after it into itself."""

    text: str
    lstrip: bool = False
    rstrip: bool = False


class Piece(NamedTuple):
    """Part of a rendered conversation; ``special`` where control tokens in it are the template's,
    and so are tokens."""

    text: str
    special: bool


class Controls:
    """The control tokens of a vocabulary, to tell those that a template writes from those that
    stand in the turns' texts."""

    def __init__(self, tokens: Iterable[Control]) -> None:
        self._tokens = {token.text: token for token in tokens if token.text}
        self._texts = list(self._tokens)
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._lengths = sorted({len(text) for text in self._texts}, reverse=True)
        first = "".join(sorted({text[0] for text in self._texts}))
        self._first = re.compile(f"[{re.escape(first)}]" if first else "(?!)")
        # Nobody can write a text that holds it, for it is made anew in each process; no result
        # does.
        self._mark = secrets.token_hex(8)
        self._marked = re.compile(rf"{self._mark}-(\d+)-")

    def hide(self, messages: Iterable[Mapping[str, Any]]) -> list[Message]:
        """Roles and texts of some turns, with something else in place of each control token's
        text."""
        return [{"role": turn["role"], "content": self._hide(turn["content"])} for turn in messages]

    def restore(self, text: str) -> str:
        """The text as it was before it was hidden."""
        return self._marked.sub(lambda found: self._texts[int(found[1])], text)

    def find_ending(self, text: str) -> str | None:
        """The control token that a text ends with."""
        return next((token for token in self._texts if text.endswith(token)), None)

    def cut_pieces(self, text: str) -> list[Piece]:
        """A conversation rendered from hidden turns as pieces, in which all texts are shown
        again."""
        if self._mark not in text:
            return [Piece(text, True)]
        pieces = []
        start = edge = 0
        for begin, end in [*self._spans(text), (len(text), len(text))]:
            if self._mark in text[edge:begin]:
                pieces += [
                    Piece(text[start:edge], True),
                    Piece(self.restore(text[edge:begin]), False),
                ]
                start = begin
            edge = end
        pieces.append(Piece(text[start:], True))
        return [piece for piece in pieces if piece.text]

    def _hide(self, text: str) -> str:
        pieces, end = [], 0
        for token, at in self._find_controls(text):
            pieces += [text[end:at], f"{self._mark}-{self._numbers[token.text]}-"]
            end = at + len(token.text)
        return "".join([*pieces, text[end:]])

    def _find_controls(self, text: str) -> Iterator[tuple[Control, int]]:
        """Each control token in a text and where it begins; of two that begin at one place the
        longer."""
        at = 0
        while found := self._first.search(text, at):
            at = found.start()
            written = (text[at : at + length] for length in self._lengths)
            token = next((self._tokens[word] for word in written if word in self._tokens), None)
            if token:
                yield token, at
            at += len(token.text) if token else 1

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each control token begins and ends, with the space that it takes into itself."""
        for token, at in self._find_controls(text):
            end = at + len(token.text)
            begin = len(text[:at].rstrip()) if token.lstrip else at
            yield begin, len(text) - len(text[end:].lstrip()) if token.rstrip else end


def is_control(text: str, special: bool) -> bool:
    """Whether an added token is a control token: where it is marked as special, or looks as such
    tokens do.

    llama.cpp's converter has the same rule: some bases do not mark the tokens that open and end
    their turns.
    """
    return special or bool(_LOOK.fullmatch(text))


def place_system_text(turns: Sequence[Message], takes_system: bool) -> list[Message]:
    """The turns as a template takes them: without a system role the system text stands at the head
    of the first user turn."""
    if not turns or turns[0]["role"] != "system" or takes_system:
        return list(turns)
    system, first = turns[0]["content"], turns[1]
    return [{"role": first["role"], "content": f"{system}\n\n{first['content']}"}, *turns[2:]]


def takes_system(render: Callable[[Sequence[Message]], str]) -> bool:
    """Whether a template has a system role; Gemma's refuses it, others leave its text out."""
    probe = [{"role": "system", "content": "\u2063"}, {"role": "user", "content": "x"}]
    try:
        return "\u2063" in render(probe)
    except Exception:  # templates raise whatever Jinja function they like
        return False


def write_date(f: str) -> str:
    """``strftime_now`` of chat templates, always of the same day."""
    return TODAY.strftime(f)
