"""A conversation in all the forms that it has in data: chat messages, ShareGPT, parts of content,
``Human:`` and ``Assistant:``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.stages.dataset.records import Fault, Row
from meetara_build.stages.dataset.text_files import excerpt, kind

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
TEXTS = ("text", "input_text", "output_text")
"""Kinds of parts of a content that are text."""
CALLS = ("tool_calls", "function_call", "tools", "functions")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# Where a picture goes into a question, as LLaVA's data write it; within a sentence it is a word
# about a tag.
MARK = re.compile(
    r"^\s*<(image|video|audio)>|<(image|video|audio)>\s*$|\n\s*<(image|video|audio)>\s*\n"
)
SWITCHES = ("weight", "train", "training", "trainable", "loss", "learn")
"""Keys by which a turn says that it is not to be learnt: ``weight: 0``, ``train: false``."""
SPOKEN = re.compile(r"\n\n(Human|Assistant|System):")


@dataclass(frozen=True)
class Cell:
    """One piece of text as the source holds it, not yet known to be text at all.

    ``role`` is system, user or assistant; ``input`` for Alpaca's input, which belongs to the user's
    turn; ``topic``. ``column`` says where it stands: ``answer``, ``messages[2].content``. ``learn``
    is false for an assistant's turn that the source keeps from being learnt (``weight: 0``).
    """

    role: str
    column: str
    content: Any
    learn: bool = True


def turns_in(value: Any) -> list[Any] | None:
    """The turns that a cell holds, as a list, in an object's ``messages``, as JSON or as
    ``Human: … Assistant: …``; else None."""
    if isinstance(value, str):
        return _spoken(value) or (
            turns_in(parse_text(value)) if value.lstrip().startswith("[") else None
        )
    if isinstance(value, Mapping):
        return turns_in([value] if _is_turn(value) else value.get("messages"))
    if isinstance(value, list) and value and all(_is_turn(turn) for turn in value):
        return value
    return None


def parse_text(text: str) -> object:
    """What a cell's JSON says; None where it is none."""
    try:
        return parse_json(text)
    except ValueError:
        return None


def read_turns(row: Row, column: str, chat: Sequence[object]) -> list[Cell] | Fault:
    """The turns of ``[{"role", "content"}]`` or of ShareGPT's ``[{"from", "value"}]``."""
    cells = []
    for at, turn in enumerate(chat):
        where = f"{column}[{at}]"
        if not isinstance(turn, Mapping):
            return Fault(row.source, row.line, where, f"is {kind(turn)}, not a turn", excerpt(turn))
        who, what = ("from", "value") if turn.get("from") is not None else ("role", "content")
        role = turn.get(who)
        if not isinstance(role, str) or role.casefold() not in ROLES:
            problem = (
                f"has no {who}" if role is None else "is no role: use system, user or assistant"
            )
            return Fault(
                row.source,
                row.line,
                f"{where}.{who}",
                problem,
                "" if role is None else excerpt(role),
            )
        if fault := find_unlearnable(row, turn, f"{where}."):
            return fault
        learn = not any(_is_off(turn.get(switch)) for switch in SWITCHES)
        cell = read_cell(
            row, ROLES[role.casefold()], f"{where}.{what}", turn.get(what), learn=learn
        )
        if isinstance(cell, Fault):
            return cell
        cells.append(cell)
    return cells


def read_cell(
    row: Row, role: str, column: str, content: object, *, learn: bool = True
) -> Cell | Fault:
    """A cell with its content as text, where that is a number or a list of parts of text.

    A part of another kind (a picture, a tool's result) is a fault, and so is the mark of a picture
    in a question.
    """
    if isinstance(content, list) and _are_parts(content):
        for at, part in enumerate(content):
            form = part.get("type") if isinstance(part, Mapping) else "text"
            if form not in TEXTS:
                problem = f"is a part of type '{excerpt(form)}': only text can be learnt"
                return Fault(row.source, row.line, f"{column}[{at}]", problem)
            if isinstance(part, Mapping) and not isinstance(part.get("text"), str):
                return Fault(
                    row.source,
                    row.line,
                    f"{column}[{at}].text",
                    f"is {kind(part.get('text'))}, not text",
                )
        content = "\n".join(part["text"] if isinstance(part, Mapping) else part for part in content)
    content = plain_value(content)
    if role in ("user", "input") and isinstance(content, str) and (mark := MARK.search(content)):
        problem = f"holds {mark[0].strip()}: only text can be learnt"
        return Fault(row.source, row.line, column, problem, excerpt(content))
    return Cell(role, column, content, learn)


def plain_value(value: object) -> object:
    """A number as its text, not-a-number as nothing; anything else as it is."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value) if value == value else None
    return value


def find_unlearnable(
    row: Row, values: Mapping[str, object], where: str = "", used: Sequence[str] = ()
) -> Fault | None:
    """What stands beside the texts of a row or a turn and cannot be learnt as text: calls of tools,
    pictures, sound.

    ``used`` are columns that somebody has named as texts.
    """
    for key, value in values.items():
        name = str(key).casefold()
        if key in used or name not in (*CALLS, *MEDIA):
            continue
        if name in CALLS and _holds_objects(value):
            return Fault(
                row.source,
                row.line,
                f"{where}{key}",
                "is for tools: only text can be learnt",
                excerpt(value),
            )
        if name in MEDIA and _is_filled(value):
            problem = f"names {'sound' if 'audio' in name else 'pictures'}: only text can be learnt"
            shown = excerpt(value) if isinstance(value, str) else ""
            return Fault(row.source, row.line, f"{where}{key}", problem, shown)
    return None


def _spoken(text: str) -> list[dict[str, str]] | None:
    """Anthropic's form. An answer that is still to come (``Assistant:`` at the end) is no turn."""
    pieces = SPOKEN.split("\n\n" + text.strip())
    if (
        pieces[0].strip()
        or pieces[1:2] not in (["Human"], ["System"])
        or "Assistant" not in pieces[1::2]
    ):
        return None
    turns = [
        {"from": who, "value": said.strip()}
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return turns if turns[-1]["value"] else turns[:-1]


def _is_turn(value: object) -> bool:
    return isinstance(value, Mapping) and (
        {"role", "content"} <= set(value) or {"from", "value"} <= set(value)
    )


def _are_parts(content: Sequence[object]) -> bool:
    typed = [isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in content]
    return any(typed) and all(
        of or isinstance(part, str) for of, part in zip(typed, content, strict=True)
    )


def _is_off(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in ("false", "0", "0.0")
    return isinstance(value, bool | int | float | Decimal) and value == 0


def _holds_objects(value: object) -> bool:
    """False for a list of words: tools may be a hammer and a saw."""
    if isinstance(value, str):
        return value.lstrip().startswith(("{", "[{"))
    return any(
        isinstance(one, Mapping) and any(inner is not None for inner in one.values())
        for one in _each(value)
    )


def _is_filled(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}")
    if isinstance(value, bool | int | float | Decimal):
        return False
    if isinstance(value, Mapping):
        return any(inner is not None for inner in value.values())
    return value is not None and value != []


def _each(value: object) -> Iterator[object]:
    yield from value if isinstance(value, list) else [value]
