"""What a base's chat template writes around each turn's text, found by rendering texts that no
template contains."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple, Self

from transformers import PreTrainedTokenizerBase

from meetara_build.errors import ProofError
from meetara_build.training.chat import render
from meetara_build.training.turns import Message

SYSTEM, ASKED, ANSWERED, NEXT = "\ue000", "\ue001", "\ue002", "\ue003"
"""Private-use characters that stand for the turns' texts while the template is taken apart."""


class ChatTurns(NamedTuple):
    """The texts around the turns of a conversation.

    Attributes:
        added: the token that a runtime itself puts before every text, which is in none of the
            others.
        opening: before the first question where no system text is given.
        before_system: from the start to a system text.
        after_system: from a system text to the next turn; to the question's text where the template
            folds the system text into the first user turn.
        before_user: before every other question.
        after_user: between a question and its answer.
        ask: after the last question, where the answer begins.
        said: the space before an answer that some templates write, and do not end a question with:
            the model says it itself.
        after_assistant: after an answer that a question follows.
        says_system: whether a system text is a turn of its own.
    """

    added: str
    opening: str
    before_system: str
    after_system: str
    before_user: str
    after_user: str
    ask: str
    said: str
    after_assistant: str
    says_system: bool

    def write(self, messages: Sequence[Message]) -> str:
        """The conversation as Ollama writes it by the template of the Modelfile."""
        written, last = "", len(messages) - 1
        for at, message in enumerate(messages):
            role, text = message["role"], message["content"]
            if role == "system":
                if self.says_system:
                    written += self.before_system + text + self.after_system
            elif role == "user":
                written += self._begin(messages, at) + text
                written += self.ask if at == last else self.after_user
            else:
                written += text + ("" if at == last else self.after_assistant)
        return written

    def _begin(self, messages: Sequence[Message], at: int) -> str:
        """What stands before a question's text."""
        if at == 0:
            return self.opening
        if at == 1 and not self.says_system and messages[0]["role"] == "system":
            return self.before_system + str(messages[0]["content"]) + self.after_system
        return self.before_user

    def begin_with(self, system: str) -> Self:
        """The same, but a conversation to which nobody gives a system text begins with this one."""
        rest = self.after_system + (self.before_user if self.says_system else "")
        return self._replace(opening=self.before_system + system + rest)

    def find_said(self, tokenizer: PreTrainedTokenizerBase, system: str) -> str:
        """A system text as the template writes it: some leave out spaces at its ends.

        Raises:
            ProofError: the template writes something else around it than around other texts.
        """
        written = render(tokenizer, [turn("system", system), turn("user", ASKED)], ask=True)
        before = written.partition(ASKED)[0].removeprefix(self.added)
        end = self.after_system + (self.before_user if self.says_system else "")
        if not (before.startswith(self.before_system) and before.endswith(end)):
            raise ProofError("the base's chat template writes this system_prompt unlike others")
        return before.removeprefix(self.before_system).removesuffix(end)


def take_apart(tokenizer: PreTrainedTokenizerBase, added: str) -> ChatTurns:
    """Find the text around each turn; ``added`` is what the runtime itself puts before a text.

    Raises:
        ProofError: the template does not write the turns' texts one after the other.
    """
    plain = [turn("user", ASKED), turn("assistant", ANSWERED), turn("user", NEXT)]
    opening, after_user, between, ask = _cut(tokenizer, plain, ask=True)
    _, _, ended = _cut(tokenizer, plain[:2], ask=False)
    after_assistant = _common_start(tokenizer, ended, between)
    before_user = between[len(after_assistant) :]
    said = after_user.removeprefix(ask) if after_user.startswith(ask) else ""
    said = said if said.isspace() else ""
    before_system, gap, _ = _cut(tokenizer, [turn("system", SYSTEM), plain[0]], ask=True)
    says_system = gap.endswith(before_user)
    return ChatTurns(
        added,
        opening.removeprefix(added),
        before_system.removeprefix(added),
        gap.removesuffix(before_user) if says_system else gap,
        before_user,
        after_user.removesuffix(said),
        ask,
        said,
        after_assistant,
        says_system,
    )


def turn(role: str, content: str) -> Message:
    """One turn."""
    return {"role": role, "content": content}


def _cut(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, ask: bool) -> list[str]:
    """What a template writes before, between and after the texts of some turns.

    Raises:
        ProofError: one of them is missing, comes twice, or not in its turn.
    """
    try:
        written = render(tokenizer, turns, ask=ask)
    except Exception as error:  # templates raise whatever Jinja function they like
        raise ProofError(f"the base's chat template refuses a conversation: {error}") from error
    marks = [str(one["content"]) for one in turns]
    if re.findall(f"[{SYSTEM}{ASKED}{ANSWERED}{NEXT}]", written) != marks:
        raise ProofError("the base's chat template does not write the turns one after the other")
    return re.split(f"[{''.join(marks)}]", written)


def _special(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that are one special token each, longest first; not all of them have a role that the
    tokenizer names."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """A text cut at its special tokens, which are pieces too."""
    special = _special(tokenizer)
    return re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]


def _common_start(tokenizer: PreTrainedTokenizerBase, one: str, other: str) -> str:
    """What two texts begin with; a special token is in it whole or not at all."""
    common = ""
    for left, right in zip(_pieces(tokenizer, one), _pieces(tokenizer, other), strict=False):
        if left != right:
            if {left, right} & set(_special(tokenizer)):
                return common
            same = takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
            return common + "".join(character for character, _ in same)
        common += left
    return common
