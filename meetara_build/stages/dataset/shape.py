"""Rows of any form as conversations: prompt and response, Alpaca, chat messages, ShareGPT,
preferences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from meetara_build.stages.dataset.columns import value_at
from meetara_build.stages.dataset.records import Drop, Fault, Message, Row
from meetara_build.stages.dataset.text_files import excerpt, kind
from meetara_build.stages.dataset.turns import (
    Cell,
    find_unlearnable,
    parse_text,
    plain_value,
    read_cell,
    read_turns,
    turns_in,
)

__all__ = ["LABELS", "Cell", "Draft", "describe_disorder", "draft", "messages"]

LABELS = ("label", "kto_tag", "desirable")
"""Columns whose ``false`` says that a record's answer is a bad one."""


@dataclass(frozen=True)
class Draft:
    """A row's conversation before it is checked; ``language`` is what the source says of it."""

    row: Row
    cells: list[Cell]
    language: str | None


def draft(row: Row, fields: Mapping[str, str]) -> Draft | Fault | Drop:
    """A row's conversation; a Fault where it has none, a Drop where it is one that must not be
    learnt."""
    used = tuple(fields.values())
    if _is_labelled_bad(row, used):
        return Drop(f"{row.source}:{row.line}", "labelled as bad")
    if fault := find_unlearnable(row, row.values, used=used):
        return fault
    if "messages" in fields and (
        _optional(row, fields["messages"]) is not None or not {"prompt", "response"} <= set(fields)
    ):
        turns = _chat(row, fields)
    else:
        turns = _pair(row, fields)
    if isinstance(turns, Fault):
        return turns
    answers = [cell for cell in turns if cell.role == "assistant"]
    if answers and not any(cell.learn for cell in answers):
        return Drop(f"{row.source}:{row.line}", "nothing to learn")
    extra = []
    if not any(cell.role == "system" for cell in turns):
        system = _optional(row, fields.get("system"))
        if system is not None:
            found = read_cell(row, "system", fields["system"], system)
            if isinstance(found, Fault):
                return found
            extra.append(found)
    topic = _topic(_optional(row, fields.get("topic")))
    if topic is not None:
        extra.append(Cell("topic", fields["topic"], topic))
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


def describe_disorder(roles: Sequence[str]) -> str:
    """What is wrong with turns that are not in order: [system,] user, assistant, user, assistant
    …"""
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
    return "ends with the user's turn: its answer is missing"


def _pair(row: Row, fields: Mapping[str, str]) -> list[Cell] | Fault:
    """The turns of a question and its answer, each a text or turns itself.

    An answer that begins with the user's turn is the whole conversation; of a question that is one,
    no answer is learnt.
    """
    found: dict[str, object] = {}
    for field in ("prompt", "response"):
        try:
            found[field] = value_at(row.values, fields[field])
        except KeyError:
            return Fault(row.source, row.line, fields[field], "is missing")
    answer = _side(row, "assistant", fields["response"], found["response"])
    if isinstance(answer, Fault) or answer[0].role != "assistant":
        return answer
    question = _side(row, "user", fields["prompt"], found["prompt"])
    if isinstance(question, Fault):
        return question
    before = _history(row) if question[0].role == "user" else []
    cells = [
        *before,
        *(Cell(cell.role, cell.column, cell.content, learn=False) for cell in question),
    ]
    if isinstance(found["prompt"], str) and found["prompt"].rstrip().endswith("Assistant:"):
        # The space after the colon is no part of the answer, wherever the two were cut apart.
        answer = [
            replace(cell, content=cell.content.lstrip(" "))
            if isinstance(cell.content, str)
            else cell
            for cell in answer
        ]
    given = _optional(row, fields.get("input"))
    if given is not None and question[-1].role == "user":
        more = read_cell(row, "input", fields["input"], given)
        if isinstance(more, Fault):
            return more
        cells.append(more)
    return [*cells, *answer]


def _history(row: Row) -> list[Cell]:
    """The turns before a question: Alpaca's ``history``, a list of pairs of question and answer."""
    rounds = row.values.get("history")
    if not isinstance(rounds, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in rounds
    ):
        return []
    return [
        Cell(role, f"history[{at}][{side}]", pair[side])
        for at, pair in enumerate(rounds)
        for side, role in enumerate(("user", "assistant"))
    ]


def _side(row: Row, role: str, column: str, value: object) -> list[Cell] | Fault:
    """The cells of a question, or of an answer."""
    turns = turns_in(value)
    if turns:
        outside = value if isinstance(value, Mapping) else {}
        return find_unlearnable(row, outside, f"{column}.") or read_turns(row, column, turns)
    cell = read_cell(row, role, column, value)
    return cell if isinstance(cell, Fault) else [cell]


def _chat(row: Row, fields: Mapping[str, str]) -> list[Cell] | Fault:
    """The turns of a conversation; where its last answer stands in a column of its own, with that
    one."""
    column = fields["messages"]
    chat = _cell(row, column)
    turns: object = turns_in(chat)
    if turns is None:
        turns = parse_text(chat) if isinstance(chat, str) else chat
    if not isinstance(turns, list):
        problem = "is missing" if chat is None else f"is {kind(chat)}, not a list of turns"
        return Fault(row.source, row.line, column, problem, "" if chat is None else excerpt(chat))
    if not turns:
        return Fault(row.source, row.line, column, "is empty: no turns")
    cells = read_turns(row, column, turns)
    answer = _optional(row, fields.get("response"))
    if isinstance(cells, Fault) or cells[-1].role == "assistant" or answer is None:
        return cells
    last = _side(row, "assistant", fields["response"], answer)
    return last if isinstance(last, Fault) else [*cells, *last]


def _is_labelled_bad(row: Row, used: Sequence[str]) -> bool:
    for column, value in row.values.items():
        if column not in used and column.casefold() in LABELS:
            return value is False or (
                isinstance(value, str) and value.strip().casefold() == "false"
            )
    return False


def _topic(value: object) -> str | None:
    """A topic as text; of several the first one."""
    if isinstance(value, list):
        return next((topic for topic in map(_topic, value) if topic is not None), None)
    text = plain_value(value)
    return text if isinstance(text, str) and text.strip() else None


def _optional(row: Row, column: str | None) -> object:
    """A cell that need not be there: None where it is missing, null, not a number, blank or an
    empty list."""
    value = None if column is None else _cell(row, column)
    if isinstance(value, str):
        return value if value.strip() else None
    return None if value in ([], {}) or value != value else value


def _cell(row: Row, column: str) -> object:
    try:
        return value_at(row.values, column)
    except KeyError:
        return None
