"""Contexts for the tests: a file of SQLite, or a database of a real PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from reported import url

from meetara_build.context.store import Store, open_store


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
