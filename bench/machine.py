"""What machine figures were measured on, and how processes are timed."""

import ctypes
import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import psutil

SAMPLE_SECONDS = 0.5


def describe() -> str:
    """One line for the head of a report."""
    return f"{date.today()}: {describe_machine()}"


def describe_machine() -> str:
    """What figures were measured on."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The commit that is measured, with a + where files differ from it."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


class Cost(NamedTuple):
    """What a command and everything it started took; memory is the largest proportional set size of
    the whole tree."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def adopt_orphans() -> None:
    """Make this process the parent of orphans below it, so that detached processes are counted too
    (Linux)."""
    ctypes.CDLL(None).prctl(36, 1)


def run(command: Sequence[str], folder: Path, *, check: bool = True) -> Cost:
    """Run a command to its end, and wait for the processes it left; ``adopt_orphans`` must have
    been called.

    Raises:
        SystemExit: the command failed, and ``check`` is true.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    sampler = _Sampler()
    output = process.communicate()[0]
    seconds = time.monotonic() - started
    peak = sampler.stop()
    if check and process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, peak)


class _Sampler:
    def __init__(self) -> None:
        self.peak = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                    continue
            self.peak = max(self.peak, total / 1e6)

    def stop(self) -> float:
        """Largest sum seen, MB."""
        self.ended.set()
        self.thread.join()
        return self.peak
