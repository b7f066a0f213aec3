"""What is judged, what it is judged by, and what is found."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from meetara_build.stages.answers.knowledge import Knowledge

Safety = Literal["strict", "standard"]


@dataclass(frozen=True)
class Case:
    """A held-out prompt, and what a right answer to it may and should say.

    Attributes:
        prompt: all that stands before the answer, but for the system prompt: the user's turns and
            earlier answers.
        reference: the held-out answer, as a person wrote it.
        language: two letters; the answer is to be in it, and is read by its lists.
        safety: as the domain's file says; some checks are for strict domains alone.
        knowledge: what the domain's answers may say: see ``gather_knowledge``.
        trusts_reference: whether what the reference names is known, and how it ends is right. It
            is: a person wrote it for this very prompt, so that a model which says it too has made
            nothing up. The benchmark measures without it as well: then it asks how often a right
            answer names a fact that nothing else has.
    """

    prompt: str
    reference: str
    language: str
    safety: Safety
    knowledge: Knowledge
    trusts_reference: bool = True


@dataclass(frozen=True)
class Answer:
    """What a model said, greedily.

    Attributes:
        text: without special tokens.
        ended: whether the model ended it by itself, and was not stopped at a limit.
        tokens: how many it generated; what the model card shows, no check reads it.
    """

    text: str
    ended: bool = True
    tokens: int = 0


class Fault(NamedTuple):
    """What one check found: a plain sentence, the words of the answer that caused it, and where they
    begin in it, once normalised (``words.normalise``); no words where the whole answer did."""

    says: str
    words: str = ""
    at: int = 0


@dataclass(frozen=True)
class Finding:
    """A fault, the check that found it, and whether an answer with it can do harm."""

    check: str
    harmful: bool
    says: str
    words: str = ""
    at: int = 0
