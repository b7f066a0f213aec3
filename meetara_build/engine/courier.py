"""The courier: a process that delivers what jobs report while they run, where others wait for it.

A context in a file below the root needs none: whoever looks at it takes in what waits. Where the
context is elsewhere, or much waits, the first job starts a courier; it ends by itself when nothing
has come for a while, and the outbox keeps what it could not deliver for the next.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from meetara_build.context.delivery import Delivery, waiting_files
from meetara_build.context.outbox import folder
from meetara_build.context.places import is_elsewhere, open_context
from meetara_build.errors import MeetaraError
from meetara_build.graph import Graph, load
from meetara_build.project import find_project

MANY = 2_000
"""Files in the outbox from which a courier takes them to a context here, too: a few builds'
worth."""
POLL_SECONDS = 0.3
IDLE_SECONDS = 10.0
LONGEST_PAUSE = 5.0
PATIENCE_SECONDS = 600.0
"""How long a courier goes on trying to reach a context that is away, after the last job has
ended."""


def start(graph: Graph) -> None:
    """Start a courier where one is needed and none is at work; no job fails because of it."""
    if not is_elsewhere(graph.context) and waiting_files(graph.root) < MANY:
        return
    with contextlib.suppress(OSError):
        folder(graph.root).mkdir(parents=True, exist_ok=True)
        with _lock_file(graph.root).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever holds it is the courier
        with (folder(graph.root) / "courier.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "meetara_build.engine.courier"],
                cwd=graph.project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _lock_file(root: Path) -> Path:
    return folder(root) / "courier.lock"


def main() -> None:
    """Deliver for the project we are in, if no other courier does."""
    graph = load(find_project())
    with _lock_file(graph.root).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        os.nice(5)  # jobs come first
        _deliver(graph)


def _deliver(graph: Graph) -> None:
    last, pause, delivery = time.monotonic(), POLL_SECONDS, None
    while True:
        away = True
        try:
            if delivery is None:
                delivery = Delivery(graph.root, open_context(graph.root, graph.context))
            if delivery.once() or delivery.waiting:
                last = time.monotonic()
            away, pause = False, POLL_SECONDS
        except MeetaraError as error:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {error}", flush=True)
            pause = min(2 * pause, LONGEST_PAUSE)
        if time.monotonic() - last > (PATIENCE_SECONDS if away else IDLE_SECONDS):
            return
        time.sleep(pause)


if __name__ == "__main__":
    main()
