"""Processes that do not outlive the one they work for."""

import ctypes
import os
import signal
import sys


def die_with_parent(parent: int | None = None) -> None:
    """Have the system end this process when the one that started it ends, however that happens (Linux only).

    ``parent`` is that process's id: where it has ended already, this one ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
