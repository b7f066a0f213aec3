"""The probe of a machine's speed is made once, and again only on another machine."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from meetara_build.engine import probe
from meetara_build.store import journal


def test_a_measure_is_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "REPEATS", 1)
    assert 0 < probe.measure() < 60


def test_it_is_measured_on_one_thread_as_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    np.zeros((2, 2)) @ np.zeros((2, 2))  # so that its library is loaded
    assert threadpool_info()
    seen: list[int] = []

    def sha256(data: bytes) -> object:
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return hashlib.new("sha256", data)

    monkeypatch.setattr("meetara_build.engine.probe.hashlib.sha256", sha256)
    monkeypatch.setattr(probe, "REPEATS", 1)
    probe.measure()
    assert set(seen) == {1}


def test_a_probe_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[float] = []

    def measure() -> float:
        measured.append(0.25)
        return 0.25

    monkeypatch.setattr(probe, "measure", measure)
    path = tmp_path / "below" / "probe.json"
    assert [probe.probe_seconds(path) for _ in range(3)] == [0.25] * 3
    assert len(measured) == 1
    assert json.loads(path.read_text()) == {"machine": journal.machine(), "seconds": 0.25}


@pytest.mark.parametrize(
    "text",
    [
        '{"machine": "another", "seconds": 9}',
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"seconds": 9}',
        '{"machine": null}',
    ],
)
def test_what_another_machine_or_nobody_measured_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(probe, "measure", lambda: 0.5)
    path = tmp_path / "probe.json"
    path.write_text(text)
    assert probe.probe_seconds(path) == 0.5
    assert json.loads(path.read_text())["machine"] == journal.machine()


@pytest.mark.parametrize("seconds", ["null", '"soon"', "[]"])
def test_a_kept_value_that_is_no_number_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setattr(probe, "measure", lambda: 0.5)
    path = tmp_path / "probe.json"
    path.write_text(f'{{"machine": {json.dumps(journal.machine())}, "seconds": {seconds}}}')
    assert probe.probe_seconds(path) == 0.5


def test_other_work_only_adds_so_the_least_of_several_measures_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took = [5.0, 3.0, 4.0]
    monkeypatch.setattr(probe, "REPEATS", len(took))
    clock = iter(
        [
            reading
            for at, seconds in enumerate(took)
            for reading in (100.0 * at, 100.0 * at + seconds)
        ]
    )
    monkeypatch.setattr("meetara_build.engine.probe.time.perf_counter", lambda: next(clock))
    assert probe.measure() == 3.0
