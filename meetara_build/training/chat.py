"""Records as token ids: the model's own chat template, and which tokens the model itself has to say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from meetara_build.errors import DataError
from meetara_build.outside import parse_json

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``"""


_MARK = "\ue002"
"""A character for private use, which stands for an answer that no template contains."""


@dataclass(frozen=True)
class Encoded:
    """One conversation as token ids; ``mask[i]`` is true where token ``i`` belongs to an assistant's turn."""

    ids: list[int]
    mask: list[bool]

    @property
    def completion_tokens(self) -> int:
        """How many tokens the loss counts; the very first token of a text can never be predicted."""
        return sum(self.mask[1:])


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, ask: bool = False) -> str:
    """The conversation as the model reads it; ``ask`` ends it where the assistant's answer would begin.

    Templates without a system role (Gemma's) get the system text at the head of the first user turn.
    """
    turns = list(messages)
    if turns and turns[0]["role"] == "system" and not _takes_system(tokenizer):
        system, first = turns[0]["content"], turns[1]
        turns = [{"role": first["role"], "content": f"{system}\n\n{first['content']}"}, *turns[2:]]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask))


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    """Token ids of a conversation, and which of them are an assistant's.

    Raises:
        DataError: the chat template writes earlier turns differently once later ones follow.
    """
    whole = render(tokenizer, messages)
    ids: list[int] = []
    mask: list[bool] = []
    written = ""
    for end, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        asked = render(tokenizer, messages[: end - 1], ask=True)
        # Templates may end the text differently when nothing follows, so the last turn is the whole text.
        answered = whole if end == len(messages) else render(tokenizer, messages[:end])
        if not (asked.startswith(written) and answered.startswith(asked) and whole.startswith(answered)):
            raise DataError(
                "the base's chat template rewrites earlier turns, so the answer's tokens cannot be told apart: "
                "use records of one question and one answer, or a base with another template"
            )
        for text, said in ((asked[len(written) :], False), (answered[len(asked) :], True)):
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [said] * len(piece)
        written = answered
    return Encoded(ids, mask)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an assistant's turn: the first added token after an answer, but for space. None where the chat template
    writes none there, so that no model on this base can learn to stop."""
    answered = render(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}])
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


def _takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    probe = [{"role": "system", "content": "\u2063"}, {"role": "user", "content": "x"}]
    try:
        return "\u2063" in str(tokenizer.apply_chat_template(probe, tokenize=False))
    except Exception:  # templates raise whatever Jinja function they like
        return False
