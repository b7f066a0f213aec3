"""What runs teach by themselves: which change of a recipe helped, and what solved an error."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from meetara_build.context import tables
from meetara_build.context.differences import differences, is_comparable
from meetara_build.context.reports import Error, Pattern, Report, Run

FIGURE = {"adapter": "validation_loss_after"}
"""By stage, the metric that says how good a result is; less is better."""
SHOWN = 200
MOST_CHANGES = 50
RUNNER = "stage_run"
"""Who reports errors of runs."""


def learn(connection: sa.Connection, runs: Iterable[Run]) -> list[Report]:
    """Errors and patterns that new runs show; errors that they solve are marked as solved."""
    found: list[Report] = []
    results: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in sorted(runs, key=lambda run: run.time):
        if run.outcome == "failed":
            found.append(_error(run))
            continue
        found = [_make_solution(one, run) for one in found]
        _solve(connection, run)
        if run.stage in FIGURE:
            step = (run.domain, run.stage)
            before = results.get(step) or _last_result(connection, run)
            found += _pattern(before, run) if before is not None and run.outcome == "built" else []
            results[step] = run.model_dump()
    return found


def signature(message: str) -> str:
    """What an error is called whenever it comes again: its first line without numbers, paths and
    quoted names."""
    line = message.strip().splitlines()[0] if message.strip() else "no reason given"
    line = re.sub(r"(/[\w.@-]+){2,}", "PATH", line)
    line = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16,}\b", "HEX", line)
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", line)[:SHOWN]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two recipes, as a line a person can read and a program can compare."""
    return "; ".join(
        f"{'.'.join(path)}: {_short(one)} → {_short(other)}"
        for path, one, other in differences(old, new)
    )


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as values; without those too long to be of use to anyone."""
    return [
        {"key": ".".join(path), "before": one, "after": other}
        for path, one, other in differences(old, new)
        if max(len(str(one)), len(str(other))) <= SHOWN
    ][:MOST_CHANGES]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _error(run: Run) -> Error:
    message = run.error or "no reason given; see the log of the run"
    return Error(
        id=f"error-{run.id}"[:64],
        time=run.time,
        domain=run.domain,
        stage=run.stage,
        sender=RUNNER,
        message=message[:8000],
        code=run.code,
        signature=signature(message),
        recipe=run.recipe,
    )


def _solution(recipe: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What an error's row says of the run that went through: when, in words, and which values had
    become others."""
    if not recipe or not run.recipe:
        said, values = "went through later; what was different then is not known", []
    else:
        said = changes(recipe, run.recipe)[:8000]
        said = said or "the same recipe went through later: another try, other code or other data"
        values = list_changes(recipe, run.recipe)
    return {"solved": run.time, "solution": said, "changes": values}


def _make_solution(report: Report, run: Run) -> Report:
    """An error of the same delivery, solved by a later run of it."""
    if (
        isinstance(report, Error)
        and (report.domain, report.stage) == (run.domain, run.stage)
        and report.solved is None
    ):
        return report.model_copy(update=_solution(report.recipe, run))
    return report


def _solve(connection: sa.Connection, run: Run) -> None:
    error = tables.error.c
    still_open = sa.and_(
        error.domain == run.domain,
        error.stage == run.stage,
        error.solved.is_(None),
        error.time <= run.time,
    )
    for row in connection.execute(sa.select(error.id, error.recipe).where(still_open)).all():
        solved = _solution(row.recipe, run)
        connection.execute(sa.update(tables.error).where(error.id == row.id).values(solved))


def _last_result(connection: sa.Connection, run: Run) -> Mapping[str, Any] | None:
    newest, runs = tables.newest.c, tables.run
    wanted = sa.and_(
        newest.kind == "result", newest.domain == run.domain, newest.stage == run.stage
    )
    row = (
        connection.execute(
            sa.select(runs).join(tables.newest, newest.id == runs.c.id).where(wanted)
        )
        .mappings()
        .first()
    )
    return None if row is None or row["time"] > run.time else dict(row)


def _pattern(before: Mapping[str, Any], run: Run) -> list[Report]:
    """What another recipe did to the figure, if it was trained from the same base on the same
    data."""
    figure = FIGURE[run.stage]
    old, new = before["metrics"].get(figure), run.metrics.get(figure)
    change = changes(before["recipe"], run.recipe)
    comparable = is_comparable(before["inputs"], run.inputs)
    if (
        not change
        or not comparable
        or not isinstance(old, float | int)
        or not isinstance(new, float | int)
    ):
        return []
    return [
        Pattern(
            id=f"pattern-{run.id}"[:64],
            time=run.time,
            domain=run.domain,
            change=change[:8000],
            figure=figure,
            before=old,
            after=new,
            runs=[before["id"], run.id],
        )
    ]
