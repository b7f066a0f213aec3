"""What the agents advised last, kept for `plan`, `accept` and `reject`."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meetara_build.rounds.inbox import (
    PROPOSALS,
    REJECTED,
    TAKEN,
    keep,
    mark,
    newer_plugins,
    read_inbox,
)

CONTENT = {
    "verdicts": [{"id": "a", "status": "wins"}, {"id": "b", "status": "outvoted"}],
    "withdrawals": [{"id": "c"}],
    "insights": {},
    "faults": {},
}


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    keep(tmp_path, CONTENT)
    assert read_inbox(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '"text"', "[" * 100_000, '{"verdicts": 5}', '{"verdicts": [1]}']
)
def test_where_nothing_or_nonsense_is_kept_nothing_was_advised(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / PROPOSALS).write_text(text)
    assert read_inbox(tmp_path)["verdicts"] == []


def test_an_answer_is_noted(tmp_path: Path) -> None:
    keep(tmp_path, CONTENT)
    mark(tmp_path, ["a"], TAKEN)
    mark(tmp_path, ["b", "c"], REJECTED)
    assert [one["status"] for one in read_inbox(tmp_path)["verdicts"]] == [TAKEN, REJECTED]
    assert read_inbox(tmp_path)["withdrawals"] == []


def test_agents_that_changed_since_they_were_asked_are_named(tmp_path: Path) -> None:
    (tmp_path / "tuner.py").touch()
    assert newer_plugins(tmp_path, tmp_path) == []
    keep(tmp_path, CONTENT)
    os.utime(tmp_path / "tuner.py", (1, 1))
    (tmp_path / "mine.py").touch()
    later = (tmp_path / PROPOSALS).stat().st_mtime + 5
    os.utime(tmp_path / "mine.py", (later, later))
    assert newer_plugins(tmp_path, tmp_path) == ["mine"]


def test_answers_at_once_are_all_noted(tmp_path: Path) -> None:
    ids = [f"p{number}" for number in range(24)]
    keep(tmp_path, {**CONTENT, "verdicts": [{"id": id, "status": "wins"} for id in ids]})
    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda id: mark(tmp_path, [id], TAKEN), ids))
    assert {one["status"] for one in read_inbox(tmp_path)["verdicts"]} == {TAKEN}
