"""Reports wait in files: nothing is lost between a job and the context, and no job fails because of
it."""

import json
import math
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meetara_build.context.outbox import Outbox, finite, folder, parcels, readable

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


def test_what_is_put_in_comes_out_with_an_id_of_its_own(tmp_path: Path) -> None:
    box = Outbox(tmp_path, domain="nutrition")
    box.put("sample", memory_mb=3.0)
    box.put("sample", memory_mb=4.0)
    box.close()
    (parcel,) = parcels(tmp_path)
    assert [(r["kind"], r["domain"], r["memory_mb"]) for r in parcel.reports] == [
        ("sample", "nutrition", 3.0),
        ("sample", "nutrition", 4.0),
    ]
    assert len({r["id"] for r in parcel.reports}) == 2
    assert parcel.closed


def test_a_file_that_may_grow_is_not_closed(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("sample")
    assert [parcel.closed for parcel in parcels(tmp_path)] == [False]
    box.close()
    assert [parcel.closed for parcel in parcels(tmp_path)] == [True]


def test_what_a_killed_process_had_said_is_there_and_closed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from meetara_build.context.outbox import Outbox\n"
        "box = Outbox(Path(sys.argv[1])); box.put('sample', memory_mb=1.0); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (parcel,) = parcels(tmp_path)
    assert parcel.closed
    assert parcel.reports[0]["memory_mb"] == 1.0


def test_a_line_that_was_cut_short_is_no_report(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("sample", memory_mb=1.0)
    box.put("sample", memory_mb=2.0)
    box.close()
    path = next(folder(tmp_path).iterdir())
    path.write_bytes(path.read_bytes()[:-9])
    (parcel,) = parcels(tmp_path)
    assert [report["memory_mb"] for report in parcel.reports] == [1.0]
    assert len(parcel.unreadable) == 1


def test_a_process_that_cannot_write_goes_on(tmp_path: Path) -> None:
    folder(tmp_path).write_text("a file where the folder should be")
    box = Outbox(tmp_path)
    box.put("sample")
    box.close()
    assert list(parcels(tmp_path)) == []


def test_nothing_is_written_before_there_is_something_to_say(tmp_path: Path) -> None:
    Outbox(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


@given(VALUES)
def test_what_is_finite_is_json_and_says_the_same(value: object) -> None:
    text = json.dumps(finite(value), allow_nan=False)
    if not isinstance(value, dict | list):
        same = value if not isinstance(value, float) or math.isfinite(value) else None
        assert json.loads(text) == same


@given(st.text())
def test_a_readable_text_has_nothing_that_a_database_refuses(text: str) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in readable(text) or "")
    assert readable(None) is None


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, meetara_build.context.outbox; print([m for m in ('sqlalchemy', 'pydantic', 'mcp') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
