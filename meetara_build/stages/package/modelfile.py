"""An Ollama Modelfile whose template writes what the base's chat template writes.

Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.training.chat import render

SYSTEM, ASKED, ANSWERED, NEXT = "\ue000", "\ue001", "\ue002", "\ue003"
"""Private-use characters that stand for the turns' texts while the template is taken apart."""


class Turns(NamedTuple):
    """What a chat template writes around each turn's text."""

    before_system: str
    after_system: str
    before_user: str
    after_user: str
    after_assistant: str
    takes_system: bool


def modelfile(recipe: Mapping[str, Any], file: str, base: Path) -> str:
    """The Modelfile for one GGUF file, which lies in the folder ``gguf`` beside the package's."""
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    turns = take_apart(tokenizer)
    lines = [f"FROM ../gguf/{file}", f'TEMPLATE """{_template(turns)}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in _stops(turns, tokenizer)]
    if recipe["system_prompt"]:
        lines.append(f'SYSTEM """{recipe["system_prompt"]}"""')
    return "\n".join(lines) + "\n"


def take_apart(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """Find the text around each turn by rendering texts that no template contains."""
    plain = render(tokenizer, [_turn("user", ASKED), _turn("assistant", ANSWERED), _turn("user", NEXT)], ask=True)
    asked, answered, following = (plain.index(mark) for mark in (ASKED, ANSWERED, NEXT))
    after_user, between = plain[asked + 1 : answered], plain[answered + 1 : following]
    ended = render(tokenizer, [_turn("user", ASKED), _turn("assistant", ANSWERED)])
    after_assistant = _common_start(ended[ended.index(ANSWERED) + 1 :], between)
    before_user = between[len(after_assistant) :]
    whole = render(tokenizer, [_turn("system", SYSTEM), _turn("user", ASKED)], ask=True)
    start, end = whole.index(SYSTEM), whole.index(ASKED)
    before_system, gap = _without_start(tokenizer, whole[:start]), whole[start + 1 : end]
    if gap.endswith(before_user):
        return Turns(before_system, gap.removesuffix(before_user), before_user, after_user, after_assistant, True)
    # The template folds the system text into the first user turn.
    return Turns("", gap, before_system, after_user, after_assistant, False)


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
    return f"{system}{user}{turns.after_user}{{{{ end }}}}{{{{ .Response }}}}{turns.after_assistant}"


def _stops(turns: Turns, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens that end an answer: the first one after it, and the end-of-text token."""
    special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    after = turns.after_assistant.lstrip()
    first = [token for token in special if after.startswith(token)]
    return list(dict.fromkeys([*first[:1], *([tokenizer.eos_token] if tokenizer.eos_token else [])]))


def _common_start(one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _without_start(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Ollama adds the beginning-of-text token itself."""
    return text.removeprefix(tokenizer.bos_token) if tokenizer.bos_token else text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
