"""An Ollama Modelfile whose template writes what the base's chat template writes.

Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.training.chat import render

SYSTEM, ASKED, ANSWERED, NEXT = "\ue000", "\ue001", "\ue002", "\ue003"
"""Private-use characters that stand for the turns' texts while the template is taken apart."""
ENDING = re.compile(r'"""(?=\s*[\r\n])')
"""What ends a text of a Modelfile before its end."""


class Turns(NamedTuple):
    """What a chat template writes around each turn's text; ``preamble`` is what it writes where
    nobody gives a system text."""

    before_system: str
    after_system: str
    before_user: str
    after_user: str
    after_assistant: str
    takes_system: bool
    preamble: str


def modelfile(system_prompt: str | None, file: str, base: Path, adapter: str | None = None) -> str:
    """The Modelfile for one GGUF file, and for an adapter on it if there is one; both as seen from
    the Modelfile."""
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    turns, system = take_apart(tokenizer), system_prompt
    if turns.preamble and not system:
        turns, system = _with_preamble(turns, tokenizer)
    lines = [f"FROM {file}", *([f"ADAPTER {adapter}"] if adapter else [])]
    lines += [f"TEMPLATE {_quote(_template(turns))}"]
    lines += [f'PARAMETER stop "{stop}"' for stop in _stops(turns, tokenizer)]
    if system and ENDING.search(system):
        lines.append(
            "# Ollama would end the text at a line that ends with three quotation marks: a space "
            "stands before the third."
        )
    if system:
        lines.append(f"SYSTEM {_quote(system)}")
    return "\n".join(lines) + "\n"


def take_apart(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """Find the text around each turn by rendering texts that no template contains."""
    plain = render(
        tokenizer,
        [_turn("user", ASKED), _turn("assistant", ANSWERED), _turn("user", NEXT)],
        ask=True,
    )
    asked, answered, following = (plain.index(mark) for mark in (ASKED, ANSWERED, NEXT))
    between = plain[answered + 1 : following]
    # Some templates write a space before an answer that they do not end a question with: the model
    # says it itself.
    after_user = render(tokenizer, [_turn("user", ASKED)], ask=True).partition(ASKED)[2]
    ended = render(tokenizer, [_turn("user", ASKED), _turn("assistant", ANSWERED)])
    after_assistant = _common_start(tokenizer, ended[ended.index(ANSWERED) + 1 :], between)
    before_user = between[len(after_assistant) :]
    preamble = _without_start(tokenizer, plain[:asked]).removesuffix(before_user)
    whole = render(tokenizer, [_turn("system", SYSTEM), _turn("user", ASKED)], ask=True)
    start, end = whole.index(SYSTEM), whole.index(ASKED)
    before_system, gap = _without_start(tokenizer, whole[:start]), whole[start + 1 : end]
    if gap.endswith(before_user):
        after_system = gap.removesuffix(before_user)
        return Turns(
            before_system, after_system, before_user, after_user, after_assistant, True, preamble
        )
    # The template folds the system text into the first user turn.
    return Turns("", gap, before_system, after_user, after_assistant, False, "")


def _with_preamble(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> tuple[Turns, str]:
    """The template's own system text (Qwen2.5's), or else its preamble's longest text (Llama 3.2's
    dates), as ``SYSTEM``."""
    own = turns.preamble.removeprefix(turns.before_system).removesuffix(turns.after_system)
    if turns.preamble == turns.before_system + own + turns.after_system and own:
        return turns, own
    own = max((text.strip() for text in _pieces(tokenizer, turns.preamble)), key=len)
    before, _, after = turns.preamble.partition(own)
    return turns._replace(before_system=before, after_system=after), own


def _quote(text: str) -> str:
    """A text as Ollama's reader takes it whole: it ends at the first line that ends with three
    quotation marks, and knows no escapes."""
    whole = ENDING.sub('"" "', text)
    return f'"""{whole}"""'


def _template(turns: Turns) -> str:
    """In Go's template language, as Ollama fills it."""
    if turns.takes_system:
        system = f"{{{{ if .System }}}}{turns.before_system}{{{{ .System }}}}{turns.after_system}{{{{ end }}}}"
        user = f"{{{{ if .Prompt }}}}{turns.before_user}{{{{ .Prompt }}}}"
    else:
        system = ""
        user = (
            f"{{{{ if .Prompt }}}}{turns.before_user}"
            f"{{{{ if .System }}}}{{{{ .System }}}}{turns.after_system}{{{{ end }}}}{{{{ .Prompt }}}}"
        )
    return (
        f"{system}{user}{turns.after_user}{{{{ end }}}}{{{{ .Response }}}}{turns.after_assistant}"
    )


def _stops(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens that end an answer: the first one after it, and the end-of-text token."""
    after = turns.after_assistant.lstrip()
    first = [token for token in _special(tokenizer) if after.startswith(token)]
    return list(
        dict.fromkeys([*first[:1], *([tokenizer.eos_token] if tokenizer.eos_token else [])])
    )


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


def _without_start(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Ollama adds the beginning-of-text token itself where the file's ``add_bos_token`` says so, as
    the gguf stage writes it there: where the tokenizer adds it."""
    ids = tokenizer("a")["input_ids"]
    adds = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds else text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
