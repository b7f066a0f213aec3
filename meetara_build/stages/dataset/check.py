"""pandera over every piece of text: all bad records at once, by file, line and column."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from meetara_build.outside import show_line
from meetara_build.stages.dataset.clean import encodable
from meetara_build.stages.dataset.records import Fault
from meetara_build.stages.dataset.shape import Draft, order_fault
from meetara_build.stages.dataset.text_files import excerpt, kind

NEEDED = ("user", "assistant")
UNSEEN = re.compile(r"[\s\u200b-\u200f\u2060\ufeff]+")


def faults_of(drafts: Sequence[Draft]) -> dict[int, list[Fault]]:
    """The faults of each draft that has any, by its place in the list."""
    found: dict[int, list[Fault]] = {}
    cells = [(at, cell) for at, draft in enumerate(drafts) for cell in draft.cells]
    for needed in (True, False):
        some = [(at, cell) for at, cell in cells if (cell.role in NEEDED) == needed]
        for place, problem in _failures([cell.content for _, cell in some], needed):
            at, cell = some[place]
            row = drafts[at].row
            shown = "" if problem in ("is null", "is empty") else excerpt(cell.content)
            found.setdefault(at, []).append(
                Fault(row.source, row.line, cell.column, problem, shown)
            )
    for at, draft in enumerate(drafts):
        disorder = order_fault(
            [cell.role for cell in draft.cells if cell.role in ("system", *NEEDED)]
        )
        if at not in found and disorder:
            column = draft.cells[-1].column.partition("[")[0]
            found[at] = [Fault(draft.row.source, draft.row.line, column, disorder)]
    return found


def table(faults: Sequence[Fault], limit: int = 50) -> str:
    """Faults as aligned lines; those beyond ``limit`` are counted."""
    rows = [["File", "Line", "Column", "What is wrong", "Found"]]
    rows += [
        [show_line(cell) for cell in (f.source, f.line, f.column or "-", f.problem, f.found)]
        for f in faults[:limit]
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(faults) > limit:
        lines.append(f"… and {len(faults) - limit} more")
    return "\n".join(lines)


def _failures(contents: list[Any], needed: bool) -> list[tuple[int, str]]:
    """Place and fault of each content that is not good text, in order."""
    if not contents:
        return []
    import pandas
    from pandera.errors import SchemaErrors

    # pandas cannot hold half a surrogate pair where it makes a table of failures; bytes fail the check for text.
    held = [
        content if not isinstance(content, str) or encodable(content) else b""
        for content in contents
    ]
    frame = pandas.DataFrame({"content": pandas.Series(held, dtype=object)})
    try:
        _schema(needed).validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        places = [
            (int(at), str(check)) for at, check in zip(cases["index"], cases["check"], strict=True)
        ]
        return [(at, _problem(check, contents[at])) for at, check in sorted(places)]
    return []


def _problem(check: str, content: Any) -> str:
    if check != "text":
        return check
    if isinstance(content, str):
        return "holds half a surrogate pair (a broken \\u escape)"
    return "is null" if content is None else f"is {kind(content)}, not text"


@lru_cache(maxsize=2)
def _schema(needed: bool) -> Any:
    import pandera.pandas as pa

    def each(good: Callable[[str], bool], error: str) -> Any:
        # What is not text fails the check for text alone: one fault a cell.
        return pa.Check(
            lambda column: column.map(lambda cell: not isinstance(cell, str) or good(cell)),
            error=error,
            ignore_na=False,
        )

    text = pa.Check(
        lambda column: column.map(lambda cell: isinstance(cell, str)), error="text", ignore_na=False
    )
    checks = [
        text,
        each(lambda cell: "\0" not in cell, "holds a NUL character"),
    ]
    if needed:
        checks.append(each(lambda cell: bool(UNSEEN.sub("", cell)), "is empty"))
    return pa.DataFrameSchema({"content": pa.Column(object, checks, nullable=True)})
