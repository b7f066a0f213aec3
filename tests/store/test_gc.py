"""The store forgets the oldest first, down to the bound, and never what is current or pinned."""

import os
import shutil
from pathlib import Path

import pytest
from artifacts import fill, manifest_of
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.store.content import Store, find_work_key
from meetara_build.store.gc import IN_FLIGHT_SECONDS, collect
from meetara_build.store.manifest import Manifest

KILO = b"x" * 1000


def result(number: int, made: Path) -> Manifest:
    """The manifest of a folder, as the result of work of this number."""
    return manifest_of(made, inputs={"base": f"{number:064x}"})


def key(number: int) -> str:
    return find_work_key(result(number, Path("/nowhere")))


def filled(above: Path, count: int) -> Store:
    """A store with results 0, 1, 2 … of a kilobyte each, the first the oldest."""
    store = Store(above / "store", above / "root")
    (above / "root").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        made = fill(above / "made", {"a.gguf": KILO + bytes([number])})
        store.add(key(number), result(number, made), made)
        os.utime(store.action(key(number)), (1000.0 + number, 1000.0 + number))
        shutil.rmtree(made)
    return store


def kept(store: Store, count: int) -> set[int]:
    return {number for number in range(count) if store.look_up(key(number)) is not None}


def blobs(store: Store) -> int:
    return len(list((store.folder / "blobs").glob("*/*")))


def test_the_oldest_go_first_until_the_rest_fits(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    found = collect(store, [], [], max_size=2100)
    assert kept(store, 5) == {3, 4}
    assert (found.works, found.blobs, found.left_works) == (3, 3, 2)
    assert found.size == found.freed == 3003
    assert blobs(store) == 2


def test_what_was_used_within_the_time_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    os.utime(store.action(key(1)))
    collect(store, [], [], max_age=3600.0)
    assert kept(store, 4) == {1}


def test_restoring_is_use(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    manifest = store.look_up(key(0))
    assert manifest is not None
    assert store.restore(key(0), manifest, tmp_path / "out")
    collect(store, [], [], max_size=1100)
    assert kept(store, 3) == {0}


def test_a_dry_run_forgets_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    assert collect(store, [], [], max_size=0, dry_run=True).works == 3
    assert kept(store, 3) == {0, 1, 2}


@given(
    wanted=st.sets(st.integers(0, 5)),
    referred=st.sets(st.integers(0, 5)),
    pinned=st.sets(st.integers(0, 5)),
)
def test_what_is_wanted_current_or_pinned_is_never_forgotten(
    tmp_path_factory: pytest.TempPathFactory, wanted: set[int], referred: set[int], pinned: set[int]
) -> None:
    above = tmp_path_factory.mktemp("gc")
    store = filled(above, 6)
    other = Store(store.folder, above / "other checkout")
    other.root.mkdir()
    for number in referred:
        other.refer(f"domain-{number}", key(number), "manifest.json")
    digests = []
    for number in pinned:
        manifest = store.look_up(key(number))
        assert manifest is not None
        digests.append(manifest.files["a.gguf"]["sha256"])
    collect(store, [key(number) for number in wanted], digests, max_size=0, max_age=0.0)
    assert kept(store, 6) == wanted | referred | pinned


def test_a_checkout_that_is_gone_holds_nothing_back(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    gone = Store(store.folder, tmp_path / "gone")
    gone.root.mkdir()
    gone.refer("nutrition-adapter", key(0), "manifest.json")
    gone.root.rmdir()
    collect(store, [], [], max_size=0)
    assert kept(store, 1) == set()
    assert not gone.refs.exists()


def test_a_checkout_on_another_machine_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, 1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("meetara_build.store.content.host", lambda: "elsewhere")
        Store(store.folder, Path("/there")).refer("nutrition-adapter", key(0), "manifest.json")
    collect(store, [], [], max_size=0)
    assert kept(store, 1) == {0}


def test_our_own_artifact_that_is_gone_is_current_no_more(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    for number in range(2):
        store.refer(f"domain-{number}", key(number), f"{number}.json")
    (store.root / "1.json").touch()
    collect(store, [], [], max_size=0)
    assert kept(store, 2) == {1}


def test_a_blob_in_flight_is_left_alone_and_an_old_one_without_work_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, 0)
    fill(store.folder, {"blobs/ab/" + "ab" * 32: KILO})
    assert collect(store, [], [], max_size=0).blobs == 0
    monkeypatch.setattr("meetara_build.store.gc.IN_FLIGHT_SECONDS", -1.0)
    assert collect(store, [], [], max_size=0).blobs == 1
    assert IN_FLIGHT_SECONDS > 600


def test_a_file_that_several_results_share_goes_with_the_last(tmp_path: Path) -> None:
    store = filled(tmp_path, 0)
    for number in range(2):
        made = fill(tmp_path / "made", {"same.gguf": KILO, "own.json": str(number).encode()})
        store.add(key(number), result(number, made), made)
        os.utime(store.action(key(number)), (1000.0 + number, 1000.0 + number))
        shutil.rmtree(made)
    collect(store, [key(1)], [], max_size=0)
    assert kept(store, 2) == {1}
    assert blobs(store) == 2


def test_a_forgotten_fingerprint_is_known_no_more(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    manifest = store.look_up(key(0))
    assert manifest is not None
    assert store.knows(manifest.fingerprint)
    collect(store, [], [], max_size=0)
    assert not store.knows(manifest.fingerprint)
