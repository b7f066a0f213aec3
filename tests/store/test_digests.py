"""A file is read again exactly where it may have changed: nothing changed is overlooked, nothing
unchanged is read."""

import os
import time
from pathlib import Path

import pytest

from meetara_build.store import digests as module
from meetara_build.store.digests import Digests, digest_source, is_settled, state
from meetara_build.store.manifest import digest_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was changed long enough ago."""
    path = tmp_path / "source.jsonl"
    path.write_bytes(b"one\n" * 100)
    time.sleep(0.03)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(module, "digest_file", noted)
    return names


def remembered(file: Path) -> Path:
    """Where a first look at a file was kept."""
    kept_in = file.with_name("kept.json")
    first = Digests(kept_in)
    first.source(file)
    first.save()
    return kept_in


def test_what_has_not_changed_is_not_read_again(file: Path, read: list[str]) -> None:
    kept_in = remembered(file)
    assert Digests(kept_in).source(file) == digest_file(file)
    assert read == ["source.jsonl"]


def other_content(file: Path) -> None:
    file.write_bytes(b"two\n" * 100)


def other_content_with_the_old_times(file: Path) -> None:
    before = file.stat()
    other_content(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file_with_the_old_times(file: Path) -> None:
    before = file.stat()
    new = file.with_name("new")
    other_content(new)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)


@pytest.mark.parametrize(
    "change", [other_content, other_content_with_the_old_times, another_file_with_the_old_times]
)
def test_every_change_is_seen(file: Path, change: object) -> None:
    kept_in = remembered(file)
    change(file)  # type: ignore[operator]
    assert Digests(kept_in).source(file) == digest_file(file)


def test_a_touched_file_is_read_once_more_and_then_no_more(file: Path, read: list[str]) -> None:
    kept_in = remembered(file)
    os.utime(file, (0, 0))
    time.sleep(0.03)
    for _ in range(2):
        again = Digests(kept_in)
        assert again.source(file) == digest_file(file)
        again.save()
    assert len(read) == 2


def test_what_changed_in_this_moment_is_not_remembered(file: Path) -> None:
    """A second change within the clock's tick would leave size and times as they are."""
    other_content(file)
    assert not is_settled(state(file))
    kept_in = remembered(file)
    assert not kept_in.exists() or str(file) not in kept_in.read_text()


def test_what_seems_to_come_from_the_future_is_never_trusted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back since the file was written."""
    now = time.time_ns()
    monkeypatch.setattr(module.time, "time_ns", lambda: now - 10**12)
    assert not is_settled(state(file))


def test_a_folder_goes_by_its_files_names_and_content(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "x.json").write_text("1")
        (tmp_path / folder / "deep" / "y.json").write_text("2")
    assert digest_source(tmp_path / "a") == digest_source(tmp_path / "b")
    kept_in = remembered(tmp_path / "a")
    (tmp_path / "a" / "deep" / "y.json").write_text("3")
    assert (
        Digests(kept_in).source(tmp_path / "a")
        == digest_source(tmp_path / "a")
        != digest_source(tmp_path / "b")
    )
    (tmp_path / "b" / "deep" / "y.json").rename(tmp_path / "b" / "deep" / "z.json")
    assert digest_source(tmp_path / "a") != digest_source(tmp_path / "b")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/x": 1}'])
def test_a_damaged_memory_is_as_none(file: Path, text: str) -> None:
    kept_in = file.with_name("kept.json")
    kept_in.write_text(text)
    assert Digests(kept_in).source(file) == digest_file(file)


def test_what_is_not_looked_at_stays_remembered(file: Path, read: list[str]) -> None:
    kept_in = remembered(file)
    other = file.with_name("other.jsonl")
    other.write_text("x")
    time.sleep(0.03)
    second = Digests(kept_in)
    second.source(other)
    second.save()
    Digests(kept_in).source(file)
    assert read == ["source.jsonl", "other.jsonl"]
