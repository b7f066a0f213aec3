"""A job that watches itself: what it uses, and how far it is, about once a second."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil

from meetara_build.context.outbox import Outbox

MB = 1 << 20
SECONDS = 1.0


@contextlib.contextmanager
def sample_resources(outbox: Outbox, *, gpu: bool) -> Iterator[None]:
    """Report what this process uses while the block runs: at its beginning, every second, and at
    its end."""
    ended = threading.Event()
    thread = threading.Thread(target=_sample, args=(outbox, ended, gpu), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        outbox.close()


def _sample(outbox: Outbox, ended: threading.Event, gpu: bool) -> None:
    process = psutil.Process()
    process.cpu_percent()  # begins the interval that the next call looks back on
    with _devices(gpu) as devices:
        while True:
            last = ended.wait(SECONDS)
            memory = psutil.virtual_memory()
            outbox.put(
                "sample",
                cpu_percent=process.cpu_percent(),
                memory_mb=process.memory_info().rss / MB,
                available_mb=memory.available / MB,
                total_mb=memory.total / MB,
                gpus=[_gpu(number, device) for number, device in enumerate(devices)],
            )
            if last:
                return


@contextlib.contextmanager
def _devices(wanted: bool) -> Iterator[list[Any]]:
    """NVML's handles of this machine's GPUs; none where the job uses none, or there is no
    driver."""
    if not wanted:
        yield []
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield []
        return
    try:
        yield [
            pynvml.nvmlDeviceGetHandleByIndex(number)
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
    finally:
        pynvml.nvmlShutdown()


def _gpu(number: int, device: Any) -> dict[str, float]:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    percent = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
    return {
        "gpu": number,
        "percent": percent,
        "memory_mb": memory.used / MB,
        "total_mb": memory.total / MB,
    }


class ProgressReporter:
    """An observer of training that reports about once a second, and every step at which the
    validation loss was measured."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.last = 0.0

    def __call__(self, progress: Any) -> None:
        """Report a ``training.settings.Progress``, if it is time."""
        now = time.monotonic()
        if (
            now - self.last < SECONDS
            and progress.validation_loss is None
            and progress.step < progress.steps
        ):
            return
        self.last = now
        self.outbox.put(
            "progress",
            step=progress.step,
            steps=progress.steps,
            loss=progress.loss,
            validation_loss=progress.validation_loss,
            learning_rate=progress.learning_rate,
            tokens_per_second=progress.completion_tokens / progress.seconds
            if progress.seconds
            else None,
            seconds=progress.seconds,
        )
