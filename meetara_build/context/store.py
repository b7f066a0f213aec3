"""The context's database: SQLite in one file, or PostgreSQL by URL. Many write at once; each report
counts once.

Writes wait for each other (SQLite has one writer; on PostgreSQL a lock of this database's), so that
changes can be seen in the order of their numbers, and who asks for what came after a number misses
nothing.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from meetara_build.context import lessons, tables
from meetara_build.context.faults import translate_errors
from meetara_build.context.reports import Report, Run, check_reports
from meetara_build.errors import ContextError, needs

RESOURCES, QUALITY, TRAINING, KNOWLEDGE = (
    "resource_status",
    "quality_metrics",
    "training_state",
    "knowledge_base",
)
SECTIONS = (RESOURCES, QUALITY, TRAINING, KNOWLEDGE)
REACHES = {
    "run": (RESOURCES, QUALITY, TRAINING),
    "sample": (RESOURCES, TRAINING),
    "progress": (TRAINING,),
    "metrics": (QUALITY,),
    "error": (KNOWLEDGE,),
    "message": (TRAINING,),
    "reply": (TRAINING,),
    "pattern": (KNOWLEDGE,),
}
"""Which sections a report of each kind changes."""
KEPT_BY_STEP = ("sample", "progress", "metrics", "run")
ROWS = 200
"""Rows to a statement: SQLite takes 32,766 values."""
LOCK, TABLES_LOCK = 0x6D657461, 0x6D657462
"""On PostgreSQL, of the writers and of who makes tables: advisory locks, which belong to one
database."""
PRUNE_EVERY = 1000
"""Changes after which what is too old is deleted."""
DAY = 86_400.0
BUSY_SECONDS = 60.0


class Retention(NamedTuple):
    """Days for which reports are kept: samples and progress, and all else. The newest of each step
    always stays."""

    samples: float = 30.0
    reports: float = 400.0


class Store:
    """A database of the newest form; see ``open_store``."""

    def __init__(self, engine: sa.Engine, shown: str, retention: Retention) -> None:
        self.engine, self.shown, self.retention = engine, shown, retention

    def deliver(self, reports: Iterable[Mapping[str, Any]]) -> list[str]:
        """Take reports in, all or none; the ids of those that were new, and had to be kept.

        Raises:
            ReportError: a report is not of its kind's shape.
            ContextError: the database cannot be written.
        """
        by_id = {report.id: report for report in check_reports(reports)}
        if not by_id:
            return []
        with self.writing() as connection:
            return [report.id for report in self._keep(connection, list(by_id.values()))]

    def _keep(self, connection: sa.Connection, reports: Sequence[Report]) -> list[Report]:
        new = self._insert(connection, reports)
        runs = [report for report in new if isinstance(report, Run)]
        learnt = self._insert(connection, lessons.learn(connection, runs)) if runs else []
        self._note(connection, new)
        self._add_up(connection, runs)
        self._announce(connection, [*new, *learnt])
        return new

    def _insert(self, connection: sa.Connection, reports: Sequence[Report]) -> list[Report]:
        """Insert what is not there yet."""
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for report in reports:
            row = report.model_dump()
            by_kind.setdefault(row.pop("kind"), []).append(
                {**row, **({"number": 0} if "about" in row else {})}
            )
        new: set[tuple[str, str]] = set()
        for kind, rows in by_kind.items():
            table = tables.REPORTS[kind]
            for start in range(0, len(rows), ROWS):
                statement = self.insert(table).values(rows[start : start + ROWS])
                found = connection.execute(
                    statement.on_conflict_do_nothing(index_elements=["id"]).returning(table.c.id)
                )
                new |= {(kind, row.id) for row in found}
        return [report for report in reports if (report.kind, report.id) in new]  # type: ignore[attr-defined]

    def _note(self, connection: sa.Connection, reports: Iterable[Report]) -> None:
        """Remember the newest report of each step."""
        newest: dict[tuple[str, str, str], dict[str, Any]] = {}
        for report in reports:
            row = report.model_dump()
            kinds = [row["kind"]] if row["kind"] in KEPT_BY_STEP else []
            # A run that failed has a size where its result is kept: that a model is held back.
            has_result = row["kind"] == "run" and (row["outcome"] != "failed" or row["size"])
            kinds += ["result"] if has_result else []
            for kind in kinds:
                key = (kind, row["domain"], row["stage"])
                if key not in newest or newest[key]["time"] <= row["time"]:
                    newest[key] = {
                        "kind": kind,
                        **{name: row[name] for name in ("domain", "stage", "time", "id")},
                    }
        for row in newest.values():
            statement = self.insert(tables.newest).values(row)
            given = statement.excluded
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["kind", "domain", "stage"],
                    set_={"time": given.time, "id": given.id},
                    where=given.time >= tables.newest.c.time,
                )
            )

    def _add_up(self, connection: sa.Connection, runs: Iterable[Any]) -> None:
        sums: dict[str, dict[str, Any]] = {}
        for run in runs:
            row = sums.setdefault(
                run.domain,
                {
                    "domain": run.domain,
                    "runs": 0,
                    "failed": 0,
                    "seconds": 0.0,
                    "cpu_seconds": 0.0,
                    "usd": 0.0,
                },
            )
            row["runs"] += 1
            row["failed"] += run.outcome == "failed"
            for name in ("seconds", "cpu_seconds", "usd"):
                row[name] += getattr(run, name)
        for row in sums.values():
            statement = self.insert(tables.total).values(row)
            more = {
                name: tables.total.c[name] + statement.excluded[name]
                for name in row
                if name != "domain"
            }
            connection.execute(
                statement.on_conflict_do_update(index_elements=["domain"], set_=more)
            )

    def _announce(self, connection: sa.Connection, new: Sequence[Report]) -> None:
        """Number what changed; a message has the number of its own change."""
        now = time.time()
        reached: dict[tuple[str, str], None] = {}
        for report in new:
            kind, domain = report.kind, getattr(report, "domain", None) or ""  # type: ignore[attr-defined]
            if kind == "message":
                number = self._number(connection, TRAINING, domain, now)
                update = (
                    sa.update(tables.message)
                    .where(tables.message.c.id == report.id)
                    .values(number=number)
                )
                connection.execute(update)
            else:
                reached |= dict.fromkeys((section, domain) for section in REACHES[kind])
        numbers = [self._number(connection, section, domain, now) for section, domain in reached]
        if any(number % PRUNE_EVERY == 0 for number in numbers):
            self._prune(connection, now)

    def _number(self, connection: sa.Connection, section: str, domain: str, now: float) -> int:
        row = {"time": now, "section": section, "domain": domain}
        return int(connection.execute(sa.insert(tables.change).values(row)).inserted_primary_key[0])  # type: ignore[index]

    def prune(self, now: float | None = None) -> None:
        """Delete what is older than the retention; what is newest of a step stays."""
        with self.writing() as connection:
            self._prune(connection, time.time() if now is None else now)

    def _prune(self, connection: sa.Connection, now: float) -> None:
        kept = sa.select(tables.newest.c.id)
        for kind, table in tables.REPORTS.items():
            days = (
                self.retention.samples if kind in ("sample", "progress") else self.retention.reports
            )
            old = table.c.time < now - days * DAY
            connection.execute(sa.delete(table).where(old, table.c.id.not_in(kept)))
        connection.execute(sa.delete(tables.change).where(tables.change.c.time < now - DAY))

    def position(self) -> int:
        """The number of the last change."""
        with self.reading() as connection:
            return int(connection.scalar(sa.select(sa.func.max(tables.change.c.number))) or 0)

    def changes(self, after: int) -> tuple[int, set[tuple[str, str]]]:
        """The number of the last change, and the (section, domain) of all changes after a
        number."""
        change = tables.change.c
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(change.number, change.section, change.domain).where(change.number > after)
            ).all()
        return max([after, *(row.number for row in rows)]), {
            (row.section, row.domain) for row in rows
        }

    def export(self) -> Iterator[dict[str, Any]]:
        """Every report that is kept, as ``deliver`` takes it."""
        with self.reading() as connection:
            for kind, table in tables.REPORTS.items():
                for row in connection.execute(
                    sa.select(table).order_by(table.c.time, table.c.id)
                ).mappings():
                    yield {
                        "kind": kind,
                        **{name: value for name, value in row.items() if name != "number"},
                    }

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database."""
        with translate_errors(self.shown), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writes beside."""
        with (
            translate_errors(self.shown),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            yield connection

    @contextlib.contextmanager
    def making_tables(self) -> Iterator[None]:
        """One process at a time makes tables, ours or another library's, each on a connection of
        its own."""
        with translate_errors(self.shown):
            if self.engine.dialect.name == "postgresql":
                with self.engine.connect() as connection, connection.begin():
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(TABLES_LOCK)))
                    yield
                return
            with _lock_beside(self.shown):
                yield

    def insert(self, table: sa.Table) -> Any:
        """An insert of this database's dialect, which knows what to do where a row is there
        already."""
        dialect: Any = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(table)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def open_store(url: str, retention: Retention | None = None) -> Store:
    """The store at a URL (``sqlite:////absolute/path``, ``postgresql://…``), made or migrated where
    that is needed.

    Raises:
        ContextError: it cannot be reached, is damaged, or was made by newer code.
        SetupError: PostgreSQL's driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        raise ContextError(
            "context.url: is no database's URL; write sqlite:////absolute/path, "
            "postgresql://user@host/name, or leave it out"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        with needs("postgres"):
            engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=connect_args(parsed))
    elif parsed.get_backend_name() == "sqlite" and parsed.database:
        shown = parsed.database
        engine = _sqlite_engine(parsed, shown)
    else:
        raise ContextError(f"context.url: {shown}: use a file of SQLite, or PostgreSQL")
    store = Store(engine, shown, retention or Retention())
    try:
        _migrate(store)
    except BaseException:
        store.close()
        raise
    return store


def connect_args(url: sa.URL) -> dict[str, Any]:
    """For how many seconds a connection waits: in SQLite for other writers, else for the server."""
    sqlite = url.get_backend_name() == "sqlite"
    return {"timeout": BUSY_SECONDS} if sqlite else {"connect_timeout": 10}


def _sqlite_engine(url: sa.URL, path: str) -> sa.Engine:
    with contextlib.suppress(OSError):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args=connect_args(url))

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = (
            None  # this code says BEGIN itself: a writer waits at its beginning, not in the middle
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
        )

    return engine


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(tables.VERSION):
        return None
    version: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {tables.VERSION}"))
    return version


def _migrate(store: Store) -> None:
    """Bring the tables to the newest form, one process at a time; an empty database gets them as
    ``tables`` has them.

    Raises:
        ContextError: the database was made by newer code.
    """
    with store.reading() as connection:
        version = _version(connection)
    if version == tables.HEAD:
        return
    if version is not None and version > tables.HEAD:
        raise ContextError(
            f"{store.shown}: was written by a newer meetara-build (its form is {version}, this one "
            f"knows {tables.HEAD}); install the newer one, or name another file in context.url"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    with store.making_tables(), store.writing() as connection:
        config.attributes["connection"] = connection
        if _version(connection) is None:
            tables.metadata.create_all(connection)
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")


@contextlib.contextmanager
def _lock_beside(path: str) -> Iterator[None]:
    """SQLite makes tables outside of transactions, so that a lock beside the file holds the others
    off."""
    try:
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ContextError(
            f"{path}: cannot be written ({error.strerror}); mend the rights, or name another file"
        ) from None
