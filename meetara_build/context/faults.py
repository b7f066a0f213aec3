"""What a database may answer, as one message that says what to do."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from meetara_build.errors import ContextError

WAITING = "jobs go on, and what they report waits in the outbox below the root"
SQLITE = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, then do it again: nothing that was there is lost",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is no database of SQLite, or damaged",
    sqlite3.SQLITE_READONLY: "cannot be written; mend its rights, or name another file in context.url",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; mend the rights of its folder, or name another file in context.url",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; stop that one (`fuser` shows it), or wait",
    sqlite3.SQLITE_IOERR: "cannot be read or written by the system; look at its disk",
}
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def translate_errors(shown: str) -> Iterator[None]:
    """Turn what the database raises into a ContextError; ``shown`` names it, without its
    password."""
    try:
        yield
    except DBAPIError as error:
        raise ContextError(f"{shown}: {_reason(error)}") from error
    except SQLAlchemyError as error:
        raise ContextError(f"{shown}: {error}; report this") from error


def _reason(error: DBAPIError) -> str:
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        code = (getattr(origin, "sqlite_errorcode", None) or 0) & 0xFF
        if code in DAMAGED:
            return (
                f"{SQLITE[code]}; move it away, and `meetara-build context import FILE` an earlier "
                "export: what waits in the outbox comes by itself"
            )
        return SQLITE.get(code, f"{origin}; report this")
    text = str(origin).strip().split("\n")[0]
    if (
        error.connection_invalidated
        or "connect" in text.lower()
        or type(origin).__name__ == "OperationalError"
    ):
        return f"cannot be reached ({text}); start it, or mend context.url: {WAITING}"
    return f"{text}; report this"
