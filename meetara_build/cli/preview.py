"""Records as they will be learnt: what of them the model has to say is marked."""

from collections.abc import Iterator, Sequence
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import show_text
from meetara_build.stages.dataset import Record

LEARNT, READ = "  > ", "    "
"""How lines begin that the model learns to say, and those that it only reads."""
LINES, COLUMNS = 8, 160
"""Of one turn, the most that is shown."""


def show_records(records: Sequence[Record], tokenizer: Any, *, whole: bool) -> list[str]:
    """Lines that show the first of the records, one from the middle and the last.

    With the base's ``tokenizer`` they are shown as its chat template writes them, without one by
    their turns. ``whole`` is whether the questions are learnt too.
    """
    places = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    lines = []
    for record in (records[place] for place in places):
        lines.append(f"{record.source}:")
        for text, learnt in _pieces(record, tokenizer, whole=whole):
            lines += [(LEARNT if learnt else READ) + line for line in _cut(text)]
    return lines


def _pieces(record: Record, tokenizer: Any, *, whole: bool) -> Iterator[tuple[str, bool]]:
    """Text after text, and whether it is learnt."""
    if tokenizer is not None:
        from meetara_build.training.chat import encode

        try:
            encoded = encode(tokenizer, record.messages)
        except DataError:  # the template cannot use it, which is said elsewhere
            pass
        else:
            learnt = [
                said or (whole and at not in encoded.never) for at, said in enumerate(encoded.mask)
            ]
            yield from _decode(tokenizer, encoded.ids, learnt)
            return
    for message in record.messages:
        is_learnt = (whole or message["role"] == "assistant") and message.get("learn", True)
        yield f"{message['role']}: {message['content']}", is_learnt


def _decode(
    tokenizer: Any, ids: Sequence[int], learnt: Sequence[bool]
) -> Iterator[tuple[str, bool]]:
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or learnt[end] != learnt[start]:
            yield (
                tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False),
                learnt[start],
            )
            start = end


def _cut(text: str) -> list[str]:
    """The lines of a text, the last ones and long ends left out and counted."""
    lines = show_text(text).strip("\n").split("\n")
    shown = [
        line if len(line) <= COLUMNS else f"{line[:COLUMNS]}… ({len(line):,} characters)"
        for line in lines
    ]
    return (
        shown
        if len(lines) <= LINES + 1
        else [*shown[:LINES], f"… and {len(lines) - LINES} more lines"]
    )
