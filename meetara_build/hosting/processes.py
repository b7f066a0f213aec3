"""Processes that do not outlive the one they work for."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 5.0
"""How long descendants that go on starting others are chased."""
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
"""Of Linux's ``prctl``."""


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Have the system send this process a signal when the one that started it ends, however that
    happens (Linux only).

    ``parent`` is that process's id: where it has ended already, this one ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, number)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have what this process's descendants leave behind become its own children, which it can find
    and end (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill what this process has started, and what that has started, until the system knows of no
    child any more.

    Children alone are killed: theirs become this process's own then (``adopt_orphans``), and
    follow.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _children() -> list[int]:
    """This process's children. Quickly: one that forks and ends at once is gone from any list that
    takes long to make."""
    try:
        return [
            int(pid)
            for path in Path("/proc/self/task").glob("*/children")
            for pid in path.read_text().split()
        ]
    except OSError:
        import psutil

        return [child.pid for child in psutil.Process().children(recursive=True)]
