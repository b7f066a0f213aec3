"""What runs took is appended, line by line, and survives what crashes and other processes do."""

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.store.journal import Run, builds, machine, record, runs

RUN = Run(
    "adapter", "nutrition", "f" * 64, "built", 1.5, 2.0, 3.0, 2.5, 400.0, 12345, "Linux-x86_64-2"
)


def test_there_is_no_history_before_the_first_run(tmp_path: Path) -> None:
    assert list(runs(tmp_path / "nowhere")) == []


def test_runs_come_back_in_order(tmp_path: Path) -> None:
    made = [
        RUN._replace(target=f"domain_{number}", error=None if number % 2 else "of no use")
        for number in range(5)
    ]
    for run in made:
        record(tmp_path / "artifacts", run)
    assert list(runs(tmp_path / "artifacts")) == made


@given(error=st.none() | st.text(), seconds=st.floats(allow_nan=False), target=st.text(max_size=20))
def test_whatever_a_run_holds_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, error: str | None, seconds: float, target: str
) -> None:
    root = tmp_path_factory.mktemp("runs")
    run = RUN._replace(error=error, seconds=seconds, target=target)
    record(root, run)
    record(root, RUN)
    assert list(runs(root)) == [run, RUN]


def test_a_line_that_a_crash_cut_short_is_skipped(tmp_path: Path) -> None:
    record(tmp_path, RUN)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"stage": "merge", "targ\n[1, 2]\n\n{"stage": "merge"}\n')
    record(tmp_path, RUN._replace(stage="gguf"))
    assert [run.stage for run in runs(tmp_path)] == ["adapter", "gguf"]


def _many(root: str, name: str) -> None:
    for number in range(200):
        record(Path(root), RUN._replace(target=name * 50, size=number))


def test_processes_side_by_side_do_not_mix_their_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(str(tmp_path), name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 600
    assert all(json.loads(line)["stage"] == "adapter" for line in lines)


def test_a_machine_has_a_name_that_stays() -> None:
    assert machine() == machine()
    assert " " not in machine()


FAILED = RUN._replace(outcome="failed", size=0, error="of no use", code="gate-loss")


def test_a_run_that_failed_left_nothing_but_where_its_model_is_held_back() -> None:
    held_back = FAILED._replace(size=12345)
    assert (RUN.is_kept, RUN.ended) == (True, "built")
    assert (FAILED.is_kept, FAILED.ended) == (False, "failed")
    assert (held_back.is_kept, held_back.ended) == (True, "held back")


def test_a_build_knows_the_work_of_every_result_that_is_kept(tmp_path: Path) -> None:
    for number, run in enumerate((RUN, FAILED, FAILED._replace(size=12345)), 1):
        record(tmp_path, run._replace(key=f"{number}", build=f"build {number}"))
    step = ("adapter", "nutrition")
    assert [build.keys[step] for build in builds(tmp_path)] == ["1", "1", "3"]
