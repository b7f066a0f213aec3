"""Rows of any form as conversations: prompt and response, Alpaca, chat messages, ShareGPT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.stages.dataset.columns import value_at
from meetara_build.stages.dataset.records import Drop, Fault, Message, Row
from meetara_build.stages.dataset.text_files import excerpt, kind

ROLES = {
    "system": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One piece of text as the source holds it, not yet known to be text at all.

    ``role`` is system, user or assistant; ``input`` for Alpaca's input, which belongs to the user's turn; ``topic``.
    ``column`` says where it stands: ``answer``, ``messages[2].content``. ``learn`` is false for an assistant's turn that
    the source keeps from being learnt (``weight: 0``).
    """

    role: str
    column: str
    content: Any
    learn: bool = True


@dataclass(frozen=True)
class Draft:
    """A row's conversation before it is checked; ``language`` is what the source says of it."""

    row: Row
    cells: list[Cell]
    language: str | None


def draft(row: Row, fields: Mapping[str, str]) -> Draft | Fault | Drop:
    """A row's conversation; a Fault where it has none, a Drop where it is one that must not be learnt."""
    chat = _optional(row, fields.get("messages"))
    if chat is not None or not {"prompt", "response"} <= set(fields):
        turns = _turns(row, fields["messages"], chat)
    else:
        turns = _pair(row, fields)
    if isinstance(turns, Fault):
        return turns
    extra = []
    if not any(cell.role == "system" for cell in turns):
        system = _optional(row, fields.get("system"))
        if system not in (None, ""):
            extra.append(Cell("system", fields["system"], system))
    topic = _optional(row, fields.get("topic"))
    if topic not in (None, ""):
        named = str(topic) if isinstance(topic, int) and not isinstance(topic, bool) else topic
        extra.append(Cell("topic", fields["topic"], named))
    language = _optional(row, fields.get("language"))
    return Draft(row, [*extra, *turns], language if isinstance(language, str) else None)


def messages(cells: Sequence[Cell]) -> list[Message]:
    """Checked cells as turns; an Alpaca input follows its instruction after an empty line."""
    turns: list[Message] = []
    for cell in cells:
        if cell.role == "input":
            turns[-1]["content"] = f"{turns[-1]['content']}\n\n{cell.content}"
        elif cell.role == "assistant" and not cell.learn:
            turns.append({"role": cell.role, "content": cell.content, "learn": False})
        elif cell.role != "topic":
            turns.append({"role": cell.role, "content": cell.content})
    return turns


def order_fault(roles: Sequence[str]) -> str | None:
    """What is wrong with the order of turns: [system,] user, assistant, user, assistant …"""
    turns = list(roles[1:] if roles and roles[0] == "system" else roles)
    if "assistant" not in turns:
        return "has no answer: nothing to learn from"
    if turns[0] != "user":
        return f"begins with the {turns[0]}'s turn, not the user's"
    for at, role in enumerate(turns):
        if role == "system":
            return f"turn {at + 1} is a system message: only the first may be"
        if role != ("user", "assistant")[at % 2]:
            return f"has two turns of the {role} in a row (turns {at} and {at + 1})"
    if turns[-1] != "assistant":
        return "ends with the user's turn: its answer is missing"
    return None


def _pair(row: Row, fields: Mapping[str, str]) -> list[Cell] | Fault:
    cells = []
    for field, role in (("prompt", "user"), ("response", "assistant")):
        try:
            cells.append(Cell(role, fields[field], value_at(row.values, fields[field])))
        except KeyError:
            return Fault(row.source, row.line, fields[field], "is missing")
    given = _optional(row, fields.get("input"))
    if given is not None and given != "":
        cells.insert(1, Cell("input", fields["input"], given))
    return cells


def _turns(row: Row, column: str, chat: Any) -> list[Cell] | Fault:
    """The turns of ``[{"role", "content"}]`` or of ShareGPT's ``[{"from", "value"}]``, also as JSON in a CSV cell."""
    if isinstance(chat, str):
        try:
            chat = parse_json(chat)
        except (ValueError, RecursionError):
            return Fault(row.source, row.line, column, "is text, not a list of turns", excerpt(chat))
    if not isinstance(chat, list):
        problem = "is missing" if chat is None else f"is {kind(chat)}, not a list of turns"
        return Fault(row.source, row.line, column, problem, "" if chat is None else excerpt(chat))
    if not chat:
        return Fault(row.source, row.line, column, "is empty: no turns")
    cells = []
    for at, turn in enumerate(chat):
        where = f"{column}[{at}]"
        if not isinstance(turn, Mapping):
            return Fault(row.source, row.line, where, f"is {kind(turn)}, not a turn", excerpt(turn))
        who, what = ("from", "value") if "from" in turn else ("role", "content")
        role = turn.get(who)
        if not isinstance(role, str) or role.casefold() not in ROLES:
            problem = f"has no {who}" if role is None else "is no role: use system, user or assistant"
            return Fault(row.source, row.line, f"{where}.{who}", problem, "" if role is None else excerpt(role))
        cells.append(Cell(ROLES[role.casefold()], f"{where}.{what}", turn.get(what)))
    return cells


def _optional(row: Row, column: str | None) -> Any:
    if column is None:
        return None
    try:
        return value_at(row.values, column)
    except KeyError:
        return None
