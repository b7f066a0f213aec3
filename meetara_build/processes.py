"""Processes that do not outlive the one they work for."""

import contextlib
import ctypes
import os
import signal
import sys
import time

PATIENCE_SECONDS = 5.0
"""How long descendants that go on starting others are chased."""
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
"""Of Linux's ``prctl``."""


def die_with_parent(parent: int | None = None) -> None:
    """Have the system end this process when the one that started it ends, however that happens (Linux only).

    ``parent`` is that process's id: where it has ended already, this one ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have what this process's descendants leave behind become its own children, which it can find and end (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)


def end_descendants(pid: int) -> None:
    """Kill what a process has started, and what that has started, until nothing of it is left."""
    import psutil

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        living = []
        with contextlib.suppress(psutil.NoSuchProcess):
            living = psutil.Process(pid).children(recursive=True)
        for child in list(living):
            with contextlib.suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    child.kill()
                    continue
            living.remove(child)
        if not living:
            return
        time.sleep(0.005)
