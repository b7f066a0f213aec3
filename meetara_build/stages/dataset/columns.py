"""Which column of a source is the question and which the answer: by the domain's mapping, else by
common names."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from meetara_build.errors import DataError

FIELDS = ("prompt", "input", "response", "messages", "system", "topic", "language")

CHOSEN = ("chosen", "preferred_output")
"""Names of the better answer in preference sets; the worse one is never learnt."""

# Names in order of preference. `input` is Alpaca's: what an instruction is applied to; alone, it is
# the question.
NAMES: dict[str, tuple[str, ...]] = {
    "messages": (
        "messages",
        "conversations",
        "conversation",
        "chat",
        "dialogue",
        "dialog",
        "turns",
    ),
    "prompt": (
        "prompt",
        "question",
        "instruction",
        "query",
        "user",
        "human",
        "problem",
        "input",
        "ask",
        "request",
    ),
    "response": (
        "response",
        "answer",
        "output",
        "completion",
        "assistant",
        "reply",
        "solution",
        "target",
        "gpt",
        "bot",
        *CHOSEN,
    ),
    "input": ("input", "context", "passage"),
    "system": ("system", "system_prompt"),
    "topic": ("topic", "category", "subject", "topics", "categories"),
    "language": ("language", "lang", "locale"),
}


def recognise(columns: Sequence[str]) -> dict[str, str]:
    """The columns whose names are common ones, by field; a column serves one field only."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(column.strip().casefold(), column)
    found: dict[str, str] = {}
    for field in ("messages", "prompt", "response", "input", "system", "topic", "language"):
        for name in NAMES[field]:
            if name in by_name and by_name[name] not in found.values():
                found[field] = by_name[name]
                break
    if (
        "messages" not in found
        and "prompt" not in found
        and found.get("response", "").strip().casefold() in CHOSEN
    ):
        found["messages"] = found.pop(
            "response"
        )  # Anthropic's preferences: the question stands in both conversations
    return found


def mapping(name: str, given: Mapping[str, str] | None, columns: Sequence[str]) -> dict[str, str]:
    """Field → column of a source.

    What the domain's file maps comes first; without a mapping, common names are recognised.

    Raises:
        DataError: a mapped column is not there, or no column can be the question or the answer.
    """
    if given is None:
        fields = recognise(columns)
        if "messages" not in fields and not {"prompt", "response"} <= set(fields):
            raise DataError(
                f"{name}: cannot tell which columns hold the question and the answer: there are "
                f"{show_columns(columns)}: map them in the domain's file, e.g. `columns: {{prompt: "
                "question, response: answer}`"
            )
        return fields
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise DataError(f"{name}: columns: unknown field '{unknown[0]}': use {', '.join(FIELDS)}")
    if absent := find_missing(given, columns):
        field, problem = absent
        raise DataError(f"{name}: {problem}: mend `columns.{field}` in the domain's file")
    if "messages" not in given and not {"prompt", "response"} <= set(given):
        missing = "prompt" if "prompt" not in given else "response"
        raise DataError(
            f"{name}: columns: `{missing}` is not mapped: map both prompt and response, or messages"
        )
    return dict(given)


def find_missing(given: Mapping[str, str], columns: Sequence[str]) -> tuple[str, str] | None:
    """The first field whose column is not there, and what to say of it."""
    for field, column in given.items():
        if not _exists(column, columns):
            known = f"there are {show_columns(columns)}{_did_you_mean(column, columns)}"
            return field, f"no column '{column}' (mapped to {field}): {known}"
    return None


def value_at(values: Mapping[str, object], column: str) -> object:
    """A row's cell; ``instances.0.output`` reaches into lists and objects where no column has that
    very name.

    Raises:
        KeyError: there is no such cell.
    """
    if column in values:
        return values[column]
    value: object = values
    for step in column.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            raise KeyError(column)
    return value


def show_columns(columns: Sequence[str]) -> str:
    """Columns as a message shows them."""
    shown = ", ".join(repr(column) for column in columns[:20])
    return f"{shown} and {len(columns) - 20} more" if len(columns) > 20 else shown or "none"


def _exists(column: str, columns: Sequence[str]) -> bool:
    return column in columns or ("." in column and column.split(".")[0] in columns)


def _did_you_mean(column: str, columns: Sequence[str]) -> str:
    folded = {known.casefold(): known for known in columns}
    close = get_close_matches(column.casefold(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""
