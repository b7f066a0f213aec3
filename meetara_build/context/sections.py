"""What agents and people see: the four sections, over all domains or for one.

Each is a mapping of JSON values. Times are ISO 8601 in UTC, losses nats a token, memory MB, money
US dollars.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from meetara_build.context import tables
from meetara_build.context.store import KNOWLEDGE, QUALITY, RESOURCES, SECTIONS, TRAINING, Store
from meetara_build.errors import ContextError

RUNNING_SECONDS = 5.0
"""A job that reported a sample within this time is at work: one is made every second."""
LISTED = 100
"""Suggestions, patterns, strategies and errors that a section shows: the newest, or the best."""

Rows = list[dict[str, Any]]


def section(store: Store, name: str, domain: str | None = None) -> dict[str, Any]:
    """A section, of all domains or of one.

    Raises:
        ContextError: there is no such section, or the database cannot be read.
    """
    if name not in READERS:
        raise ContextError(f"unknown section '{name}'; there are {', '.join(SECTIONS)}")
    with store.reading() as connection:
        return READERS[name](connection, domain)


def when(moment: float | None) -> str | None:
    """Unix time as people write it."""
    return (
        None
        if moment is None
        else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    )


def _resource_status(connection: sa.Connection, domain: str | None) -> dict[str, Any]:
    samples = _newest(connection, "sample", tables.sample, domain)
    machines: dict[str, dict[str, Any]] = {}
    for row in sorted(samples, key=lambda row: row["time"]):
        machines[row["machine"]] = row
    runs = _newest(connection, "run", tables.run, domain)
    peaks: dict[str, float] = {}
    for row in runs:
        peaks[row["stage"]] = max(peaks.get(row["stage"], 0.0), row["peak_mb"])
    return {
        "gpu_utilization": [
            {"machine": name, "time": when(row["time"]), "gpus": row["gpus"]}
            for name, row in machines.items()
            if row["gpus"]
        ],
        "memory_usage": {
            "machines": [
                {
                    "machine": name,
                    "time": when(row["time"]),
                    **_only(row, "available_mb", "total_mb"),
                }
                for name, row in machines.items()
            ],
            "jobs": [
                {**_step(row), **_only(row, "memory_mb", "cpu_percent")}
                for row in sorted(samples, key=lambda row: (row["domain"], row["stage"]))
            ],
            "peak_mb_by_stage": peaks,
        },
        "cost_tracking": _costs(connection, domain),
    }


def _costs(connection: sa.Connection, domain: str | None) -> dict[str, Any]:
    total = tables.total
    rows = (
        connection.execute(_of(sa.select(total).order_by(total.c.domain), total.c.domain, domain))
        .mappings()
        .all()
    )
    names = ("runs", "failed", "seconds", "cpu_seconds", "usd")
    return {
        **{name: sum(row[name] for row in rows) for name in names},
        "by_domain": {row["domain"]: {name: row[name] for name in names} for row in rows},
    }


def _quality_metrics(connection: sa.Connection, domain: str | None) -> dict[str, Any]:
    results = {
        (row["domain"], row["stage"]): row
        for row in _newest(connection, "result", tables.run, domain)
    }

    def of(stage: str) -> dict[str, Any]:
        found = ((name, row) for (name, at), row in sorted(results.items()) if at == stage)
        return {
            name: {"time": when(row["time"]), "build": row["build"], **row["metrics"]}
            for name, row in found
        }

    reported = _newest(connection, "metrics", tables.metrics, domain)
    return {
        "validation_scores": of("adapter"),
        "data_quality": of("dataset"),
        "model_performance": {
            "evaluated": of("evaluate"),
            "judged": of("package"),
            "reported": [{**_step(row), **_only(row, "sender", "values")} for row in reported],
        },
    }


def _training_state(connection: sa.Connection, domain: str | None) -> dict[str, Any]:
    now = time.time()
    samples = _newest(connection, "sample", tables.sample, domain)
    ended = {
        (row["domain"], row["stage"]): row["time"]
        for row in _newest(connection, "run", tables.run, domain)
    }
    at_work = [
        {**_step(row), "build": row["build"], "machine": row["machine"]}
        for row in samples
        if now - row["time"] < RUNNING_SECONDS
        and ended.get((row["domain"], row["stage"]), 0.0) < row["time"]
    ]
    figures = (
        "step",
        "steps",
        "loss",
        "validation_loss",
        "learning_rate",
        "tokens_per_second",
        "seconds",
    )
    return {
        "current_domain": at_work,
        "progress_metrics": [
            {
                **_step(row),
                "build": row["build"],
                **_only(row, *figures),
                "seconds_left": _estimate_left(row),
            }
            for row in _newest(connection, "progress", tables.progress, domain)
        ],
        "optimization_suggestions": messages(
            connection, about="proposal", domain=domain, newest=LISTED
        ),
    }


def _estimate_left(row: Mapping[str, Any]) -> float | None:
    """Seconds that a training has to go at its speed so far."""
    return row["seconds"] / row["step"] * (row["steps"] - row["step"]) if row["step"] else None


def _knowledge_base(connection: sa.Connection, domain: str | None) -> dict[str, Any]:
    pattern, error = tables.pattern.c, tables.error.c
    helped = (
        sa.select(tables.pattern)
        .where(pattern.after < pattern.before)
        .order_by(pattern.time.desc())
        .limit(LISTED)
    )
    patterns = connection.execute(_of(helped, pattern.domain, domain)).mappings().all()
    return {
        "successful_patterns": [
            {
                **_only(row, "domain", "change", "figure", "before", "after", "runs"),
                "time": when(row["time"]),
                "gain": _gain(row["before"], row["after"]),
            }
            for row in patterns
        ],
        "optimization_strategies": _strategies(connection, domain),
        "error_solutions": [
            {
                **_only(row, "domain", "stage", "message", "code", "signature"),
                **_only(row, "solution", "changes"),
                "time": when(row["time"]),
                "solved": when(row["solved"]),
            }
            for row in connection.execute(
                _of(
                    sa.select(tables.error).order_by(error.time.desc()).limit(LISTED),
                    error.domain,
                    domain,
                )
            ).mappings()
        ],
    }


def _strategies(connection: sa.Connection, domain: str | None) -> Rows:
    """Each change that was tried: how often it helped, and by how much on average; the best
    first."""
    pattern = tables.pattern.c
    gain = (pattern.before - pattern.after) / sa.func.nullif(sa.func.abs(pattern.before), 0.0)
    helped = sa.func.sum(sa.case((pattern.after < pattern.before, 1), else_=0))
    mean = sa.func.avg(gain)
    wanted = (
        sa.select(
            pattern.change,
            sa.func.count().label("tried"),
            helped.label("helped"),
            mean.label("mean_gain"),
        )
        .group_by(pattern.change)
        .order_by(mean.desc(), pattern.change)
        .limit(LISTED)
    )
    rows = connection.execute(_of(wanted, pattern.domain, domain)).mappings()
    return [{**row, "helped": int(row["helped"])} for row in rows]


def _gain(before: float, after: float) -> float | None:
    return (before - after) / abs(before) if before else None


def messages(
    connection: sa.Connection,
    *,
    after: int = 0,
    about: str | None = None,
    domain: str | None = None,
    newest: int | None = None,
    limit: int = 1000,
) -> Rows:
    """Messages with a number above ``after``, in order, with the last answer of each who answered;
    or only the newest so many."""
    message = tables.message.c
    wanted = sa.select(tables.message).where(message.number > after)
    wanted = wanted.where(message.about == about) if about else wanted
    wanted = _of(wanted, message.domain, domain)
    wanted = (
        wanted.order_by(message.number.desc()).limit(newest)
        if newest
        else wanted.order_by(message.number).limit(limit)
    )
    rows = connection.execute(wanted).mappings().all()
    replies = _replies(connection, [row["id"] for row in rows])
    return [
        {
            **_only(row, "id", "number", "about", "sender", "domain", "body"),
            "time": when(row["time"]),
            "answers": replies.get(row["id"], {}),
        }
        for row in rows
    ]


def _replies(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By message and by who answered."""
    reply = tables.reply
    found: dict[str, dict[str, Any]] = {}
    wanted = sa.select(reply).where(reply.c.message.in_(ids)).order_by(reply.c.time, reply.c.id)
    for row in connection.execute(wanted).mappings() if ids else ():
        answer = {**_only(row, "answer", "reason"), "time": when(row["time"])}
        found.setdefault(row["message"], {})[row["sender"]] = answer
    return found


def read_runs(
    store: Store,
    *,
    domain: str | None = None,
    stage: str | None = None,
    build: str | None = None,
    outcome: str | None = None,
    before: float | None = None,
    limit: int = 50,
) -> Rows:
    """Stage runs, the newest first."""
    run = tables.run.c
    wanted = sa.select(tables.run)
    for column, value in (
        (run.domain, domain),
        (run.stage, stage),
        (run.build, build),
        (run.outcome, outcome),
    ):
        wanted = wanted if value is None else wanted.where(column == value)
    wanted = wanted if before is None else wanted.where(run.time < before)
    with store.reading() as connection:
        rows = (
            connection.execute(wanted.order_by(run.time.desc(), run.id).limit(limit))
            .mappings()
            .all()
        )
    return [
        {
            **{name: row[name] for name in row if name not in ("recipe", "inputs")},
            "time": when(row["time"]),
        }
        for row in rows
    ]


def history(store: Store, limit: int) -> dict[str, Rows]:
    """What agents look back on, oldest first: the newest so many runs with their recipes, and
    messages. Times are Unix times."""
    with store.reading() as connection:
        wanted = (
            sa.select(tables.run).order_by(tables.run.c.time.desc(), tables.run.c.id).limit(limit)
        )
        runs = [dict(row) for row in connection.execute(wanted).mappings()]
        wanted = sa.select(tables.message).order_by(tables.message.c.number.desc()).limit(limit)
        told = [dict(row) for row in connection.execute(wanted).mappings()]
        wanted = sa.select(tables.reply).order_by(tables.reply.c.time, tables.reply.c.id)
        replies = [dict(row) for row in connection.execute(wanted).mappings()]
    answers: dict[str, Rows] = {}
    for row in replies:
        answers.setdefault(row["message"], []).append(
            _only(row, "time", "sender", "answer", "reason")
        )
    messages = [
        {
            **_only(row, "id", "time", "about", "sender", "domain"),
            "body": row["body"],
            "answers": answers.get(row["id"], []),
        }
        for row in reversed(told)
    ]
    return {"runs": runs[::-1], "messages": messages}


def _newest(connection: sa.Connection, kind: str, table: sa.Table, domain: str | None) -> Rows:
    """The newest report of a kind for each step."""
    newest = tables.newest
    wanted = sa.select(table).join(newest, newest.c.id == table.c.id).where(newest.c.kind == kind)
    rows = connection.execute(_of(wanted, newest.c.domain, domain)).mappings()
    return sorted((dict(row) for row in rows), key=lambda row: (row["domain"], row["stage"]))


def _of(wanted: Any, column: Any, domain: str | None) -> Any:
    return wanted if domain is None else wanted.where(column == domain)


def _step(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"domain": row["domain"], "stage": row["stage"], "time": when(row["time"])}


def _only(row: Any, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


READERS = {
    RESOURCES: _resource_status,
    QUALITY: _quality_metrics,
    TRAINING: _training_state,
    KNOWLEDGE: _knowledge_base,
}


def list_reported(store: Store) -> set[str]:
    """The domains that any run was reported of."""
    with store.reading() as connection:
        return set(connection.scalars(sa.select(tables.total.c.domain)))


def has_message(store: Store, id: str) -> bool:
    """Whether there is a message of this id."""
    with store.reading() as connection:
        return (
            connection.scalar(sa.select(tables.message.c.id).where(tables.message.c.id == id))
            is not None
        )
