"""A job says what it uses and how far it is, and is neither slower nor wiser for it."""

import time
from pathlib import Path
from unittest import mock

import pytest

from meetara_build.context import sampler
from meetara_build.context.outbox import Outbox, Report, parcels
from meetara_build.context.reports import check_reports
from meetara_build.context.sampler import ProgressReporter, sample_resources
from meetara_build.training.settings import Progress

ABOUT = {"domain": "nutrition", "stage": "adapter", "build": "b", "machine": "m", "hardware": "cpu"}


def reports(root: Path) -> list[Report]:
    return [report for parcel in parcels(root) for report in parcel.reports]


def progress(step: int, validation: float | None = None, loss: float = 2.0) -> Progress:
    return Progress(
        step=step,
        steps=100,
        epoch=1,
        loss=loss,
        validation_loss=validation,
        learning_rate=1e-3,
        gradient_norm=1.0,
        micro_batch_tokens=256,
        completion_tokens=10 * step,
        seconds=float(step),
    )


def test_a_job_is_sampled_while_it_runs_and_at_its_end(tmp_path: Path) -> None:
    with (
        mock.patch.object(sampler, "SECONDS", 0.05),
        sample_resources(Outbox(tmp_path, **ABOUT), gpu=False),
    ):
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            sum(range(10_000))
    found = reports(tmp_path)
    assert len(found) >= 3
    assert all(10 < sample["memory_mb"] < sample["total_mb"] for sample in found)
    assert max(sample["cpu_percent"] for sample in found) > 20
    assert len(check_reports(found)) == len(found)


def test_a_job_that_fails_was_sampled_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sample_resources(Outbox(tmp_path, **ABOUT), gpu=False):
        1 / 0  # noqa: B018
    assert [report["kind"] for report in reports(tmp_path)] == ["sample"]
    assert all(parcel.closed for parcel in parcels(tmp_path))


def test_where_there_is_no_gpu_none_is_told_of(tmp_path: Path) -> None:
    with sample_resources(Outbox(tmp_path, **ABOUT), gpu=True):
        pass
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert [report["gpus"] for report in reports(tmp_path)] == [[]]
    else:
        assert reports(tmp_path)[0]["gpus"][0]["total_mb"] > 0


def test_progress_is_told_about_once_a_second_and_whenever_it_was_validated(tmp_path: Path) -> None:
    tell = ProgressReporter(Outbox(tmp_path, **ABOUT))
    for step in range(1, 101):
        tell(progress(step, validation=1.5 if step in (50, 51) else None))
    assert [(report["step"], report["validation_loss"]) for report in reports(tmp_path)] == [
        (1, None),
        (50, 1.5),
        (51, 1.5),
        (100, None),
    ]
    assert reports(tmp_path)[0]["tokens_per_second"] == 10.0
    assert len(check_reports(reports(tmp_path))) == 4


def test_a_loss_that_is_no_number_is_told_as_none(tmp_path: Path) -> None:
    ProgressReporter(Outbox(tmp_path, **ABOUT))(progress(1, loss=float("nan")))
    assert reports(tmp_path)[0]["loss"] is None
    assert len(check_reports(reports(tmp_path))) == 1
