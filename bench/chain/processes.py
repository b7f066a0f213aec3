"""One process of a recipe: run to its end, its cost taken from the kernel's own account."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
START = "start"
"""The part that processes take to begin: Python itself and its imports."""
COMPILED = ("imatrix", "quantize", "evaluate")
"""The parts for which llama.cpp has programs of its own: llama-imatrix, llama-quantize and
llama-perplexity."""
SAID = "CHAIN "
"""Begins the line in which a worker says what it found."""


class Cost(NamedTuple):
    """What a process and those that it waited for took; ``peak_mb`` is that of the largest one."""

    cpu_seconds: float
    seconds: float
    peak_mb: float


class Account:
    """What the processes of one run of a recipe took, by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.seconds = 0.0
        self.peak_mb = 0.0

    def add(self, part: str, cost: Cost, start: float) -> None:
        """Add a process, of whose CPU-seconds ``start`` went by before it did its work.

        The start of what stands for a program in C++ is not counted: that has next to none.
        """
        start = min(start, cost.cpu_seconds)
        self.parts[part] = self.parts.get(part, 0.0) + cost.cpu_seconds - start
        if part not in COMPILED:
            self.parts[START] = self.parts.get(START, 0.0) + start
        self.seconds += cost.seconds
        self.peak_mb = max(self.peak_mb, cost.peak_mb)


def limit_threads(threads: int) -> dict[str, str]:
    """The environment of every process of every recipe."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    return {**os.environ, **counts, **quiet, "PYTHONPATH": path}


def run_command(command: Sequence[str], threads: int) -> tuple[str, Cost]:
    """Run a command; what it wrote, and its cost.

    Raises:
        SystemExit: it failed.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env=limit_threads(threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    seconds = time.monotonic() - started
    return output, Cost(used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 1024)


def run_worker(
    account: Account,
    part: str,
    name: str,
    job: Mapping[str, Any],
    threads: int,
    python: str = sys.executable,
) -> dict[str, Any]:
    """Run a function of ``bench.chain.workers`` as a process of its own; what it said.

    Raises:
        SystemExit: it failed.
    """
    words = json.dumps({"threads": threads, **job}, default=str)
    output, cost = run_command([python, "-m", "bench.chain.workers", name, words], threads)
    said = read_said(output)
    account.add(part, cost, said.pop(START))
    return said


def read_said(output: str) -> dict[str, Any]:
    """What a worker said among whatever else it wrote."""
    [line] = [line for line in output.splitlines() if line.startswith(SAID)]
    said: dict[str, Any] = json.loads(line.removeprefix(SAID))
    return said


def run_script(account: Account, part: str, module: str, words: Sequence[str]) -> None:
    """Run one of llama.cpp's own scripts as a process; its start is what ``--help`` takes."""
    _, cost = run_command([sys.executable, "-m", module, *words], 1)
    account.add(part, cost, measure_help(module))


@cache
def measure_help(module: str) -> float:
    """CPU-seconds until a script has imported all and reads its command line."""
    return run_command([sys.executable, "-m", module, "--help"], 1)[1].cpu_seconds
