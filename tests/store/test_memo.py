"""A memo gives back what was made from the same state, and makes it anew for another."""

from pathlib import Path

import pytest

from meetara_build.store.memo import Memo


def made(path: Path, state: object, key: str = "a") -> tuple[object, bool]:
    """A key's value, which is its state, and whether it had to be made."""
    calls = []

    def make() -> object:
        calls.append(key)
        return state

    memo = Memo(path, state)
    value = memo.get(key, make)
    assert memo.get(key, make) == value
    memo.save()
    return value, bool(calls)


def test_the_same_state_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    assert made(path, [1, "x"]) == ([1, "x"], True)
    assert made(path, [1, "x"]) == ([1, "x"], False)


def test_another_state_is_made_anew_and_forgets_the_old(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    assert made(path, 1) == (1, True)
    assert made(path, 2) == (2, True)
    assert made(path, 1) == (1, True)


def test_what_was_not_used_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    made(path, 1, "a")
    made(path, 1, "b")
    assert made(path, 1, "b") == (1, False)
    assert made(path, 1, "a") == (1, True)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"state": 1}', '{"state": "x", "values": []}']
)
def test_a_damaged_memo_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "memo.json"
    path.write_text(text)
    assert made(path, 1) == (1, True)


def test_a_memo_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    made(path, 1)
    written = path.stat().st_mtime_ns
    made(path, 1)
    assert path.stat().st_mtime_ns == written
