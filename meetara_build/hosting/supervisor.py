"""What runs in the process that is started for an agent.

An agent may start processes and leave them behind, kill its group, or end in any way. So the
process forks before it imports anything: the child is the agent; the parent adopts what that leaves
behind, and ends all of it once the agent has ended, its asker says so (SIGTERM), or is gone.
"""

import contextlib
import json
import os
import pickle
import resource
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
LONGEST_FAULT = 1000
"""Characters."""
MEMORY_BYTES = 4 << 30
"""What an agent may allocate."""
PACKAGE = Path(__file__).parents[1]

Work = Callable[[Any], Any]
"""What a process does with each request: JSON in, JSON out."""
Prepare = Callable[[], Work]
"""What makes that in the agent's process; it is pickled."""


def main(asker: int, talk: int) -> NoReturn:
    """Start the agent and look after it. Requests and answers are lines of JSON on the socket
    ``talk``; ``asker`` is a process id."""
    die_with_parent(asker, signal.SIGTERM)
    adopt_orphans()
    supervisor, agent = os.getpid(), os.fork()
    if not agent:
        _live(supervisor, talk)

    def end_agent(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_agent)
    os.close(talk)
    while (ended := os.waitpid(-1, 0))[0] != agent:
        pass  # what it has left behind
    end_descendants()
    status = os.waitstatus_to_exitcode(ended[1])
    os._exit(status if status >= 0 else 128 - status)


def _live(supervisor: int, talk: int) -> NoReturn:
    """The life of an agent's process."""
    status = 1
    try:
        os.setsid()
        die_with_parent(supervisor)
        sys.stdout = sys.stderr = open(  # noqa: SIM115
            1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, most))
        _answer_all(socket.socket(fileno=talk))
        status = 0
    finally:
        with contextlib.suppress(Exception):  # by now it may be anything
            sys.stdout.flush()
        os._exit(status)


def _answer_all(talk: socket.socket) -> None:
    work: Work | None = None
    for line in talk.makefile("rb"):
        request = parse_json(line)
        said: dict[str, Any] = {"number": request["number"]}
        try:
            work = work or pickle.load(sys.stdin.buffer)()
            text = json.dumps({**said, "value": work(request)}, allow_nan=False)
            if len(text) > LARGEST_ANSWER:
                raise MeetaraError(
                    f"gives {len(text) / 1e6:.0f} MB; give {LARGEST_ANSWER / 1e6:.0f} MB at most"
                )
        except BaseException as error:  # an agent may raise anything, SystemExit too
            text = json.dumps({**said, "fault": _describe_fault(error)})
        talk.sendall(text.encode() + b"\n")


def _describe_fault(error: BaseException) -> str:
    """A fault in a line, with the place in the agent's own file where it has one; the log gets all
    of it."""
    reason = "no reason given"
    with contextlib.suppress(BaseException):  # what was raised is an agent's too
        traceback.print_exception(error)
        said = str(error).strip()
        if isinstance(error, MeetaraError):
            return said[:LONGEST_FAULT]
        reason = (said.splitlines() or [reason])[-1][:LONGEST_FAULT]
    others = (str(PACKAGE), sys.prefix, "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {reason}{where}"
