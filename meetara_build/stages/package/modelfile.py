"""An Ollama Modelfile whose template writes what the base's chat template writes, proved with the
file that it names.

Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md. What Ollama's parser and
template make of it was tried with Ollama's own code, at the commit in tests/ollama_prompts.json.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer

from meetara_build.errors import ProofError
from meetara_build.llama_cpp.model import Model
from meetara_build.stages.package.chat_turns import ChatTurns, take_apart, turn
from meetara_build.training.turns import Message

KEPT = "\n\r\t"
"""What Ollama's parser keeps of a text although it is not printable."""
SHOWN = 40
"""Characters that are shown on either side of a difference."""
_HIDDEN = re.compile(r'\{(?=\{|$)|"""')
"""What would begin an action of a template, or end the text of a Modelfile."""

_ASKED = (
    'Is "one" {{ .Content }} or {two}? A \\n and\n\n- a list: सलाह, 你好, naïve 🙂',
    "And then?",
    "Why not 1,234.5?",
)
_ANSWERS = ('Both, "I" think.\nSecond line.', "Nothing.")
_GUIDE = 'You are a "careful" guide.\nZwei Zeilen: सलाह.'


def modelfile(
    system_prompt: str | None, file: str, base: Path, model: Path, adapter: str | None = None
) -> str:
    """The Modelfile for one GGUF file, and for an adapter on it if there is one; both as seen from
    the Modelfile. ``model`` is where that GGUF file lies now.

    Raises:
        ProofError: the base's chat template cannot be written in Ollama's template language, or
            with this system prompt the tokens would be others than in training.
    """
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with Model(model, vocab_only=True) as opened:
        turns = take_apart(tokenizer, added_start(opened))
        system = turns.find_said(tokenizer, system_prompt) if system_prompt else None
        if system and not can_hold(system):
            turns, system = turns.begin_with(system), None
        prove_turns(turns, system, system_prompt, opened)
        stops = [opened.text_of(token) for token in range(opened.n_vocab) if opened.is_end(token)]
    lines = [f"FROM {file}", *([f"ADAPTER {adapter}"] if adapter else [])]
    lines += [f'TEMPLATE """{write_template(turns)}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f'SYSTEM """{system}"""'] if system else []
    return "\n".join(lines) + "\n"


def added_start(model: Model) -> str:
    """The text of the token that a runtime puts before every text, because the file's
    ``add_bos_token`` says so; empty where it puts none."""
    first = model.tokenize("", add_special=True)[:1]
    return model.text_of(first[0]) if first else ""


def can_hold(text: str) -> bool:
    """Whether Ollama reads a text between three quotation marks as it is: it drops characters that
    cannot be printed, and ends at the first line that ends with three quotation marks."""
    ends = (f'"""{text[: end.start()]}'.rstrip() for end in re.finditer(r"[\r\n]", text))
    return all(char.isprintable() or char in KEPT for char in text) and not any(
        len(line) >= 6 and line.endswith('"""') for line in ends
    )


def write_template(turns: ChatTurns) -> str:
    """In Go's template language, as Ollama fills it."""
    before_system, after_system = escape(turns.before_system), escape(turns.after_system)
    system, user = "", escape(turns.before_user)
    if turns.says_system:
        text = f"{before_system}{{{{ .Content }}}}{after_system}"
        system = f'{{{{ if eq .Role "system" }}}}{text}{{{{ else '
    else:
        text = f"{before_system}{{{{ $.System }}}}{after_system}"
        user = _choose("and (eq $i 1) $.System", text, user)
    if turns.opening != turns.before_user:
        user = _choose("eq $i 0", escape(turns.opening), user)
    after = escape(turns.after_user)
    if turns.ask != turns.after_user:
        after = _choose("$last", escape(turns.ask), after)
    return (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{system or "{{ "}if eq .Role "user" }}}}{user}{{{{ .Content }}}}{after}'
        '{{ else if eq .Role "assistant" }}{{ .Content }}{{ if not $last }}'
        f"{escape(turns.after_assistant)}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def _choose(condition: str, then: str, other: str) -> str:
    return f"{{{{ if {condition} }}}}{then}{{{{ else }}}}{other}{{{{ end }}}}"


def escape(text: str) -> str:
    """A text as it stands in a template of a Modelfile: characters that Ollama's parser or Go's
    templates would take for something else are written by their numbers."""

    def number(characters: str) -> str:
        return '{{ "' + "".join(f"\\U{ord(char):08x}" for char in characters) + '" }}'

    hidden = _HIDDEN.sub(lambda found: number(found[0]), text)
    return "".join(char if char.isprintable() or char in KEPT else number(char) for char in hidden)


def prove_turns(
    turns: ChatTurns, system: str | None, system_prompt: str | None, model: Model
) -> None:
    """Refuse turns that a runtime would not read as training does, with the ``system`` that it puts
    before what nobody gives a system text.

    Raises:
        ProofError: with the first place that differs.
    """
    for messages in _conversations():
        has_system = messages[0]["role"] == "system"
        own = [] if has_system or not system_prompt else [turn("system", system_prompt)]
        given = [] if has_system or not system else [turn("system", system)]
        said = [
            turn("assistant", turns.said + one["content"]) if one["role"] == "assistant" else one
            for one in messages
        ]
        written = turns.write([*given, *said])
        ids = model.prompt([*own, *messages])
        if model.tokenize(written, add_special=True) != ids:
            wanted = "".join(map(model.text_of, ids))
            found = "".join(map(model.text_of, model.tokenize(written, add_special=True)))
            raise ProofError(_describe_difference(wanted, found))


def _describe_difference(wanted: str, found: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), None)
    if at is None and len(wanted) == len(found):
        return (
            "the system_prompt holds a control token of the base, which Ollama would not read as "
            "text: take it out of the system_prompt"
        )
    at = min(len(wanted), len(found)) if at is None else at
    start = max(at - SHOWN, 0)
    return (
        f"Ollama would read {found[start : at + SHOWN]!r} where training reads "
        f"{wanted[start : at + SHOWN]!r}: its template language cannot say what the base's chat "
        "template says"
    )


def _conversations() -> Iterator[list[Message]]:
    """One question and several, with and without a system text."""
    first, second, third = (turn("user", text) for text in _ASKED)
    one, two = (turn("assistant", text) for text in _ANSWERS)
    for guide in ([], [turn("system", _GUIDE)]):
        for turns in ([first], [second, one, third], [first, one, second, two, third]):
            yield [*guide, *turns]
