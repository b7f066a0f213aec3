"""What passes between the steps of the dataset stage."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict


class Message(TypedDict):
    """A turn; an assistant's that is not to be learnt has ``"learn": False`` as well."""

    role: str
    content: str
    learn: NotRequired[bool]


@dataclass(frozen=True)
class Row:
    """One record as a source holds it; ``line`` counts from 1 (Parquet and hub data sets: the
    row)."""

    source: str
    line: int
    values: dict[str, object]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one cell of a source, or with a whole line (``column`` is None)."""

    source: str
    line: int
    column: str | None
    problem: str
    found: str = ""

    def as_json(self) -> dict[str, object]:
        """The fault as the account and ``--json`` show it."""
        return {key: getattr(self, key) for key in ("source", "line", "column", "problem", "found")}


@dataclass(frozen=True)
class Drop:
    """A good record that is left out; a duplicate names the record that it ``matched`` and how
    closely."""

    source: str
    reason: str
    matched: str | None = None
    similarity: float | None = None
    id: str | None = None

    def as_json(self) -> dict[str, object]:
        """The drop as the account shows it."""
        own = {} if self.id is None else {"id": self.id}
        return own | {
            key: getattr(self, key) for key in ("source", "reason", "matched", "similarity")
        }


@dataclass(frozen=True)
class Record:
    """One conversation, clean and checked; ``source`` is ``file:line``, ``changed`` says by column
    how its text was changed."""

    id: str
    messages: list[Message] = field(hash=False)
    language: str
    topic: str | None
    source: str
    changed: dict[str, list[str]] = field(default_factory=dict, hash=False)

    @property
    def prompt(self) -> str:
        """All that the user says."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def response(self) -> str:
        """All that the assistant says."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "assistant")

    @property
    def kinds_of_change(self) -> list[str]:
        """What was changed in its text, each kind once."""
        return sorted({change for changes in self.changed.values() for change in changes})

    def as_json(self) -> dict[str, object]:
        """The record as a line of the data set: without its source, so that who reads it does not
        see a line that moved."""
        return {key: getattr(self, key) for key in ("id", "messages", "language", "topic")}


def content_id(messages: Sequence[Message]) -> str:
    """16 hex digits of what is asked and answered.

    System prompts do not count, nor do case and spacing: the same question and answer are the same
    record in every domain, so that they land on the same side of every split. A turn that is not to
    be learnt makes another record.
    """
    said = [
        f"{m['role']}\x1f{fold_text(m['content'])}"
        + ("" if m.get("learn", True) else "\x1fnot learnt")
        for m in messages
        if m["role"] != "system"
    ]
    return hashlib.sha256("\x1e".join(said).encode()).hexdigest()[:16]


def fold_text(text: str) -> str:
    """The text without differences of case, spacing and compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def tally(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
