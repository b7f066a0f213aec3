"""The declared schema over every record: all bad ones at once, by file, line and column."""

from collections.abc import Sequence
from typing import Any

from meetara_build.outside import show_line
from meetara_build.stages.dataset.clean import encodable
from meetara_build.stages.dataset.records import Fault
from meetara_build.stages.dataset.shape import Draft, describe_disorder
from meetara_build.stages.dataset.text_files import excerpt, kind

NEEDED = ("user", "assistant")


def faults_of(drafts: Sequence[Draft]) -> dict[int, list[Fault]]:
    """The faults of each draft that has any, by its place in the list."""
    from meetara_build.stages.dataset.record_schema import Conversation, Text, Turn

    found: dict[int, list[Fault]] = {}
    cells = [(at, cell) for at, draft in enumerate(drafts) for cell in draft.cells]
    for model, needed in ((Turn, True), (Text, False)):
        some = [(at, cell) for at, cell in cells if (cell.role in NEEDED) == needed]
        contents = [_find_value(cell.content) for _, cell in some]
        for place, check in _failures(model, "content", contents, object):
            at, cell = some[place]
            problem = _problem(check, cell.content)
            shown = "" if problem in ("is null", "is empty") else excerpt(cell.content)
            fault = Fault(drafts[at].row.source, drafts[at].row.line, cell.column, problem, shown)
            found.setdefault(at, []).append(fault)
    whole = [(at, _roles(draft)) for at, draft in enumerate(drafts) if at not in found]
    turns = ["".join(role[0] for role in roles) for _, roles in whole]
    for place, _ in _failures(Conversation, "turns", turns, str):
        at, roles = whole[place]
        row, column = drafts[at].row, drafts[at].cells[-1].column.partition("[")[0]
        found[at] = [Fault(row.source, row.line, column, describe_disorder(roles))]
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


def _roles(draft: Draft) -> list[str]:
    return [cell.role for cell in draft.cells if cell.role in ("system", *NEEDED)]


def _find_value(content: object) -> object:
    """pandas cannot hold half a surrogate pair where it makes a table of failures; bytes are no
    text either."""
    return content if not isinstance(content, str) or encodable(content) else b""


def _failures(model: Any, column: str, values: list[Any], dtype: type) -> list[tuple[int, str]]:
    """Place and name of each check that a value fails, in order."""
    import pandas as pd
    from pandera.errors import SchemaErrors

    try:
        model.validate(pd.DataFrame({column: pd.Series(values, dtype=dtype)}), lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        return sorted(
            (int(at), str(check)) for at, check in zip(cases["index"], cases["check"], strict=True)
        )
    return []


def _problem(check: str, content: object) -> str:
    if check == "not_nullable":
        return "is null"
    if check != "is not text":
        return check
    if isinstance(content, str):
        return "holds half a surrogate pair (a broken \\u escape)"
    return f"is {kind(content)}, not text"
