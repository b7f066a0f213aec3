"""The processes that an agent lives in.

An agent may start processes and leave them behind, close its files, kill its group, or end in any way. So a keeper stands between
it and who asks: a process that starts the agent, adopts what that leaves behind, copies what it prints to a log of bounded length,
and ends all of it once its parent says so, or is gone.
"""

import contextlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from meetara_build.errors import MeetaraError
from meetara_build.hosting.processes import adopt_orphans, die_with_parent, end_descendants
from meetara_build.outside import parse_json

LARGEST_ANSWER = 4_000_000
"""Bytes of JSON."""
LARGEST_LOG = 1_000_000
"""Bytes of what an agent prints; the rest is left out."""
LONGEST_FAULT = 1000
"""Characters."""
MEMORY_BYTES = 4 << 30
"""What an agent may allocate beside what its parent had."""
PACKAGE = Path(__file__).parents[1]

Work = Callable[[Any], Any]
"""What a process does with each request: JSON in, JSON out."""


def start(
    prepare: Callable[[], Work], talk: socket.socket, lifeline: socket.socket, log: Path
) -> int:
    """Start a keeper and its agent; the keeper's id.

    Requests and answers are lines of JSON on ``talk``. The keeper ends once the other end of ``lifeline`` is shut, or the agent has
    ended; its exit status is the agent's, as a shell gives it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()  # what is left in their buffers would come out twice
        keeper = os.fork()
        if not keeper:
            _keep(prepare, talk, lifeline, file.fileno())
    return keeper


def _keep(
    prepare: Callable[[], Work], talk: socket.socket, lifeline: socket.socket, log: int
) -> NoReturn:
    """The life of a keeper."""
    status = 1
    try:
        os.setsid()  # Ctrl-C is its parent's to answer
        adopt_orphans()
        _let_go({talk.fileno(), lifeline.fileno(), log})
        os.dup2(log, 1)
        os.dup2(log, 2)
        printed, printing = os.pipe()
        agent = os.fork()
        if not agent:
            for number in (lifeline.detach(), printed, log):
                os.close(number)
            _live(prepare, talk, printing)
        os.close(printing)
        talk.close()
        status = _watch(agent, lifeline.fileno(), _Copy(printed, log))
    finally:
        os._exit(status)


def _let_go(kept: set[int]) -> None:
    """Give up what the parent has open: an agent has no business with its files, and must not hold its locks after it.

    The numbers stay taken, so that the objects they belonged to close nothing else.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in {int(path.name) for path in Path("/dev/fd").iterdir()} - kept - {1, 2, nothing}:
        with contextlib.suppress(OSError):
            os.dup2(nothing, number, inheritable=number == 0)


class _Copy:
    """From a pipe to a file, as long as there is room."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target, self.room = source, target, LARGEST_LOG
        os.set_blocking(source, False)

    def some(self) -> bool:
        """Copy what is there; whether there was any."""
        try:
            found = os.read(self.source, 1 << 16)
        except BlockingIOError:
            return False
        with contextlib.suppress(OSError):  # a full disk is no reason to stop reading
            os.write(self.target, found[: self.room])
        self.room -= min(len(found), self.room)
        return bool(found)


def _watch(agent: int, lifeline: int, printed: _Copy) -> int:
    """Until the agent has ended, or is to end; its exit status."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for watched in (woken, lifeline, printed.source):
            selector.register(watched, selectors.EVENT_READ)
        while (status := _ended(agent)) is None:
            ready = {key.fd for key, _ in selector.select()}
            signals = os.read(woken, 4096) if woken in ready else b""
            if lifeline in ready or signal.SIGTERM in signals:
                break
            if printed.source in ready and not printed.some():
                selector.unregister(printed.source)  # the agent has closed it
    end_descendants()
    while printed.some():
        pass
    return 1 if status is None else status


def _ended(agent: int) -> int | None:
    """An agent's exit status once it has ended, as a shell gives it; whatever else has ended is let go."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == agent:
                status = os.waitstatus_to_exitcode(ended[1])
                return status if status >= 0 else 128 - status
    return None


def _live(prepare: Callable[[], Work], talk: socket.socket, printing: int) -> NoReturn:
    """The life of an agent's process."""
    status = 1
    try:
        keeper = os.getppid()
        os.setsid()
        die_with_parent(keeper)
        os.dup2(printing, 1)
        os.dup2(printing, 2)
        sys.stdout = sys.stderr = os.fdopen(
            1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        with contextlib.suppress(ValueError, OSError):
            bound = _allocated() + MEMORY_BYTES
            resource.setrlimit(
                resource.RLIMIT_DATA, (bound, resource.getrlimit(resource.RLIMIT_DATA)[1])
            )
        _answer_all(prepare, talk)
        status = 0
    finally:
        with contextlib.suppress(Exception):  # by now it may be anything
            sys.stdout.flush()
        os._exit(status)


def _answer_all(prepare: Callable[[], Work], talk: socket.socket) -> None:
    work: Work | None = None
    for line in talk.makefile("rb"):
        request = parse_json(line)
        said: dict[str, Any] = {"number": request["number"]}
        try:
            work = work or prepare()
            text = json.dumps({**said, "value": work(request)}, allow_nan=False)
            if len(text) > LARGEST_ANSWER:
                raise MeetaraError(
                    f"gives {len(text) / 1e6:.0f} MB; give {LARGEST_ANSWER / 1e6:.0f} MB at most"
                )
        except BaseException as error:  # an agent may raise anything, SystemExit too
            text = json.dumps({**said, "fault": _said(error)})
        talk.sendall(text.encode() + b"\n")


def _said(error: BaseException) -> str:
    """A fault in a line, with the place in the agent's own file where it has one; the log gets all of it."""
    reason = "no reason given"
    with contextlib.suppress(BaseException):  # what was raised is an agent's too
        traceback.print_exception(error)
        said = str(error).strip()
        if isinstance(error, MeetaraError):
            return said[:LONGEST_FAULT]
        reason = (said.splitlines() or [reason])[-1][:LONGEST_FAULT]
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if not frame.filename.startswith((str(PACKAGE), sys.prefix, "<"))
    ]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {reason}{where}"


def _allocated() -> int:
    """Bytes of this process's private memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
