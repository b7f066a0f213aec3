"""One store for all: SQLite and PostgreSQL behave alike, many write at once, and each report counts
once."""

import multiprocessing
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from commands import filled, small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reported import one_of_each, progress, proposal, report, run, sample, url

from meetara_build.context import tables
from meetara_build.context.sections import section
from meetara_build.context.store import DAY, PRUNE_EVERY, Retention, Store, open_store
from meetara_build.errors import ContextError, ReportError


def ids(store: Store) -> list[str]:
    """The ids of all that is kept and was not learnt by itself."""
    return sorted(row["id"] for row in store.export())


def test_what_is_delivered_can_be_exported_as_it_was(store: Store) -> None:
    given = one_of_each()
    assert sorted(store.deliver(given)) == sorted(one["id"] for one in given)
    kept = {row["id"]: row for row in store.export()}
    for one in given:
        assert one.items() <= kept[one["id"]].items()


def test_what_comes_twice_counts_once(store: Store) -> None:
    given = one_of_each()
    store.deliver([*given, given[0]])
    before, position = ids(store), store.position()
    assert store.deliver(given[::-1]) == []
    assert (ids(store), store.position()) == (before, position)


def test_all_are_taken_or_none(store: Store) -> None:
    with pytest.raises(ReportError):
        store.deliver([run(), run(domain="No Name")])
    assert ids(store) == []


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.integers(0, 7), max_size=20), st.lists(st.integers(1, 5), max_size=5))
def test_the_order_and_the_portions_of_deliveries_do_not_matter(
    tmp_path: Path, picks: list[int], cuts: list[int]
) -> None:
    pool = one_of_each()
    whole, parts = (open_store(url(tmp_path / os.urandom(4).hex())) for _ in range(2))
    given = [pool[at] for at in picks]
    whole.deliver(given)
    for size in [*cuts, len(given)]:
        parts.deliver(given[:size])
        given = given[size:]
    assert ids(whole) == ids(parts)
    whole.close()
    parts.close()


# Changes


def test_a_change_is_told_by_section_and_domain(store: Store) -> None:
    start = store.position()
    store.deliver([progress(), sample(domain="legal")])
    last, found = store.changes(start)
    assert found == {
        ("training_state", "nutrition"),
        ("training_state", "legal"),
        ("resource_status", "legal"),
    }
    assert last == store.position()
    assert store.changes(last) == (last, set())


def write(url: str, writer: int, count: int) -> None:
    """One of many writers; each report in a delivery of its own."""
    store = open_store(url)
    for number in range(count):
        made = report(
            "metrics", domain=f"d{writer}", sender="bench", values={"number": float(number)}
        )
        store.deliver([{**made, "id": f"{writer}-{number}"}])
    store.close()


def test_many_writers_lose_and_double_nothing_and_no_change_is_missed(database: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(database, writer, 25)) for writer in range(6)]
    for process in writers:
        process.start()  # all of them find an empty database, and make its tables
    store = None
    seen: set[tuple[str, str]] = set()
    counted, last = 0, 0
    while any(process.is_alive() for process in writers) or counted < 150:
        store = store or open_store(database)
        with store.reading() as connection:
            newer = connection.scalars(
                sa.select(tables.change.c.number).where(tables.change.c.number > last)
            ).all()
        counted, last = counted + len(newer), max([last, *newer])
        seen |= store.changes(0)[1]
        assert not any(process.exitcode for process in writers)
    assert store is not None
    assert counted == 150
    assert seen == {("quality_metrics", f"d{writer}") for writer in range(6)}
    assert ids(store) == sorted(f"{writer}-{number}" for writer in range(6) for number in range(25))
    store.close()


# Retention


def old(days: float, made: dict[str, Any]) -> dict[str, Any]:
    """A report from so many days ago."""
    return {**made, "time": time.time() - days * DAY}


def test_what_is_too_old_goes_but_the_newest_of_each_step_stays(database: str) -> None:
    store = open_store(database, Retention(samples=2, reports=10))
    gone = [old(3, sample()), old(11, run()), old(11, proposal()), old(3, progress())]
    kept = [
        old(1, sample()),
        old(9, run()),
        old(9, proposal()),
        old(3, sample(domain="legal")),
        old(11, run(domain="legal")),
    ]
    store.deliver([*gone, *kept, old(1, progress())])
    store.prune()
    assert not {one["id"] for one in gone} & set(ids(store))
    assert {one["id"] for one in kept} <= set(ids(store))
    store.close()


def test_what_is_too_old_goes_by_itself(tmp_path: Path) -> None:
    store = open_store(url(tmp_path), Retention(samples=2, reports=10))
    store.deliver([old(11, run()), old(1, run())])
    for start in range(0, PRUNE_EVERY, 100):
        store.deliver(
            [
                report("metrics", domain=f"d{start + n}", sender="me", values={"a": 1.0})
                for n in range(100)
            ]
        )
    with store.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.run)) == 1
    store.close()


def test_totals_outlive_the_runs_they_add_up(store: Store) -> None:
    store.deliver([old(1000, run(seconds=5.0, usd=0.5)), run(seconds=3.0, usd=0.25)])
    store.prune()
    with store.reading() as connection:
        (row,) = connection.execute(sa.select(tables.total)).mappings()
    assert (row["runs"], row["seconds"], row["usd"]) == (2, 8.0, 0.75)


# Migrations


def test_a_new_database_has_the_tables_and_the_version_of_the_newest_migration(
    store: Store,
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with store.reading() as connection:
        there = MigrationContext.configure(connection, opts={"version_table": tables.VERSION})
        assert compare_metadata(there, tables.metadata) == []
    folder = Path(tables.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [tables.HEAD]


def test_a_database_of_the_first_form_is_migrated_and_keeps_what_it_holds(database: str) -> None:
    store = open_store(database)
    store.deliver([run(outcome="failed", error="it broke")])
    with store.writing() as connection:
        connection.execute(sa.text("ALTER TABLE error DROP COLUMN changes"))
        connection.execute(sa.text(f"UPDATE {tables.VERSION} SET version_num = '0001'"))
    store.close()
    store = open_store(database)
    (error,) = section(store, "knowledge_base", None)["error_solutions"]
    assert (error["message"], error["changes"]) == ("it broke", [])
    test_a_new_database_has_the_tables_and_the_version_of_the_newest_migration(store)


def test_a_newer_database_is_refused_and_left_alone(database: str) -> None:
    store = open_store(database)
    store.deliver([run()])
    with store.writing() as connection:
        connection.execute(sa.text(f"UPDATE {tables.VERSION} SET version_num = '9999'"))
    store.close()
    with pytest.raises(
        ContextError, match=r"was written by a newer meetara-build .* install the newer one"
    ):
        open_store(database)


# Faults


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(
        ContextError, match=r"context.db: is no database of SQLite, or damaged; move it away"
    ):
        open_store(url(tmp_path))
    assert path.read_bytes() == b"no database " * 1000


def test_damage_in_the_middle_of_a_file_is_named(tmp_path: Path) -> None:
    store = open_store(url(tmp_path))
    store.deliver([run(domain=f"d{n}", error="x" * 2000) for n in range(100)])
    store.close()
    content = bytearray((tmp_path / "context.db").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    (tmp_path / "context.db").write_bytes(content)
    with pytest.raises(ContextError, match="is damaged; move it away"):
        list(open_store(url(tmp_path)).export())


def test_a_full_disk_is_named_and_loses_nothing_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        store = open_store(url(disk))
        store.deliver([run()])
        much = [run(error="x" * 8000) for _ in range(100)]
        with (
            filled(disk, but=200_000),
            pytest.raises(ContextError, match=r"the disk is full; make room"),
        ):
            store.deliver(much)
        assert len(ids(store)) == 1
        assert len(store.deliver(much)) == 100
        store.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContextError, match="mend the rights"):
        open_store(f"sqlite:///{tmp_path}/file/context.db")


@pytest.mark.parametrize("wrong", ["nonsense", "mysql://a/b", "sqlite://", "http:"])
def test_a_url_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ContextError, match=r"context\.url"):
        open_store(wrong)


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(ContextError) as refusal:
        open_store("postgresql://someone:secret@127.0.0.1:1/nothing")
    assert "cannot be reached" in str(refusal.value)
    assert "start it, or mend context.url" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_server_that_goes_away_in_the_middle_is_named_and_used_again_when_it_is_back(
    postgres: str,
) -> None:
    store = open_store(postgres)
    store.deliver([run()])
    other = sa.create_engine(
        sa.make_url(postgres).set(drivername="postgresql+psycopg", database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    name = sa.make_url(postgres).database
    with other.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            sa.text(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
        )
        with pytest.raises(ContextError, match="cannot be reached"):
            store.deliver([run()])
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    assert len(store.deliver([run()])) == 1
    assert len(ids(store)) == 2
    other.dispose()
    store.close()


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_database(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    open_store(url(tmp_path)).close()
    process = context.Process(target=write, args=(url(tmp_path), 0, 100_000))
    process.start()
    store = open_store(url(tmp_path))
    while store.position() < 20:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    kept = ids(store)
    assert sorted(kept) == sorted(f"0-{number}" for number in range(len(kept)))
    assert sqlite3.connect(tmp_path / "context.db").execute(
        "PRAGMA integrity_check"
    ).fetchall() == [("ok",)]
    store.close()
