"""The warm process: it has imported what stages need and run nothing, and forks a job for each
request.

Importing torch, transformers, PEFT and the converter costs more than a small domain's training;
forked jobs start with all of it. It is started by the first job that finds none, and stops by
itself when no job has come for a while.

A request is one JSON line, with the asker's environment in it and its standard output and error as
file descriptors; the answer is one JSON line. An asker that goes away takes its job with it, and
the end of the warm process ends every job.
"""

import array
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from meetara_build import sockets
from meetara_build.engine.holder import Base, find_base, hold
from meetara_build.engine.job import LIMITS, shell_limits
from meetara_build.errors import BuildError, JobMemoryError, SetupError
from meetara_build.graph.stages import NAMES
from meetara_build.hosting.processes import die_with_parent
from meetara_build.outside import parse_json

IDLE_SECONDS = 20.0
START_SECONDS = 120.0
HANG = "MEETARA_HANG_SECONDS"
HANG_SECONDS = 600.0
"""A job whose main thread uses no CPU for so long hangs, and is ended; unless its asker's
environment has another number."""
REQUEST_SECONDS = 5.0
"""An asker that is stopped in the middle of its request must not hold up the others for longer."""
ENVIRONMENT = {
    # Waiting OpenMP threads that spin would steal the other job's core.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONHASHSEED": "0",
}


def ask(request: Mapping[str, Any]) -> int:
    """Have a job done by the warm process, starting one where there is none; the job's exit status.

    A job that was killed, crashed or hung is begun once more, from its checkpoint where it left
    one.

    Raises:
        BuildError: that happened twice (JobMemoryError where the kernel killed it), or the warm
            process was killed.
        SetupError: no warm process can be started.
    """
    request = {
        **request,
        "environment": {**os.environ, **ENVIRONMENT},
        "hang_seconds": _hang_seconds(),
    }
    status, hung = _ask(request)
    if status < 0:
        print(
            f"{request['name']}: {_describe_end(status, hung)}; begun once more",
            file=sys.stderr,
            flush=True,
        )
        output = Path(request["output"])
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True, exist_ok=True)
        status, hung = _ask(request)
    if status < 0:
        kind = JobMemoryError if status == -signal.SIGKILL and not hung else BuildError
        raise kind(f"{request['name']}: {_describe_end(status, hung)}, twice; build again")
    return status


def _describe_end(status: int, hung: float) -> str:
    if hung:
        return (
            f"the job hung: it used no CPU for {hung:g} s and was ended (set {HANG} if that was "
            "too soon)"
        )
    name = signal.Signals(-status).name
    hint = (
        "out of memory? use fewer jobs at once or a smaller base"
        if name == "SIGKILL"
        else "see its log"
    )
    return f"the job was ended by {name} ({shell_limits() or hint})"


def _hang_seconds() -> float:
    given = os.environ.get(HANG, str(HANG_SECONDS))
    try:
        return float(given)
    except ValueError:
        raise SetupError(
            f"{HANG}: '{given}' is no number of seconds; set it to one like 600, or unset it"
        ) from None


def _ask(request: Mapping[str, Any]) -> tuple[int, float]:
    """The exit status of a job, below zero where a signal ended it; and for how many seconds it had
    hung, if it had."""
    base = find_base(request)
    held = None if base is None else _open_holder(base, request)
    with held or _open_connection() as connection:
        _send(connection, request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(4096):
                answer += piece
    if not answer:
        log = _socket_path().with_suffix(".log")
        hint = f"{limits}, then build again" if (limits := shell_limits()) else "build again"
        raise BuildError(
            f"{request['name']}: the warm process was ended during the job; {hint} (its log is "
            f"{log})"
        )
    said = parse_json(answer)
    return int(said["status"]), float(said["hung"])


def _send(connection: socket.socket, request: Mapping[str, Any]) -> None:
    """A request, with our standard output and error."""
    line = json.dumps(request).encode() + b"\n"
    files = array.array("i", [sys.stdout.fileno(), sys.stderr.fileno()])
    connection.sendmsg([line[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    connection.sendall(line[1:])


def _open_holder(base: Base, request: Mapping[str, Any]) -> socket.socket | None:
    """A connection to the process that holds a base, which is started where there is none; None
    where there cannot be one: the job then loads the base itself, and says what is wrong with it."""
    path = _socket_path(base.name)
    deadline = time.monotonic() + request["hang_seconds"]
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (connection := _try_connecting(path)) is not None:
            return connection
        path.unlink(missing_ok=True)
        with _open_connection() as starting:
            _send(starting, {**request, "serve": str(path), "base": base})
            while not path.exists():
                answered = select.select([starting], [], [], 0.01)[0]
                if answered or time.monotonic() > deadline:
                    return None
        return _try_connecting(path)


def _try_connecting(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        sockets.connect(connection, path)
    except OSError:
        connection.close()
        return None
    return connection


def _open_connection() -> socket.socket:
    path = _socket_path()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (connection := _try_connecting(path)) is not None:
            return connection
        _start(path)
    raise SetupError(
        f"no warm process within {START_SECONDS:.0f} s; see {path.with_suffix('.log')}"
    )


def _start(path: Path) -> None:
    """Start a warm process unless someone else just did, and wait until it listens."""
    command = [sys.executable, "-m", "meetara_build.engine.warm", str(path)]
    if not sockets.start_once(path, command, {**os.environ, **ENVIRONMENT}):
        raise SetupError(_why_not(path))


def _why_not(path: Path) -> str:
    last, hint = sockets.read_last_words(path), shell_limits() or "run `meetara-build doctor`"
    return (
        f"the warm process cannot start ({last}); {hint}; the whole log is "
        f"{path.with_suffix('.log')}"
    )


def _socket_path(base: str = "") -> Path:
    """One warm process for each user, Python, state of this package's code, and what no job can
    change for itself; and one for each base that is held."""
    limits = [resource.getrlimit(kind) for kind in LIMITS]
    return sockets.find_folder() / f"{sockets.name_process(limits, base)}.sock"


class _Server:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = sockets.listen(path)
        self.identity = path.stat().st_ino
        self.jobs: dict[int, socket.socket] = {}
        self.holders: dict[int, socket.socket] = {}
        self.patience: dict[int, float] = {}
        self.seen: dict[int, tuple[int, float]] = {}
        self.hung: set[int] = set()

    def serve(self) -> None:
        """Fork a job for each request until none has come for a while."""
        wake, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._serve(wake, IDLE_SECONDS)
        if self.path.exists() and self.path.stat().st_ino == self.identity:
            self.path.unlink()
        # Whoever connected before the name was gone is still served.
        while select.select([self.listener], [], [], 0)[0]:
            self._accept()
            self._serve(wake, 0)

    def _serve(self, wake: int, idle_seconds: float) -> None:
        last = time.monotonic()
        while self.jobs or self.holders or time.monotonic() - last < idle_seconds:
            watched: list[Any] = [self.listener, wake, *self.jobs.values()]
            ready, _, _ = select.select(watched, [], [], 1.0)
            if wake in ready:
                os.read(wake, 4096)
            if self.jobs:
                last = time.monotonic()
            if self.listener in ready:
                self._accept()
                last = time.monotonic()
            for pid, connection in list(self.jobs.items()):
                if connection in ready and _gone(connection):
                    _kill(pid)
            self._end_hung()
            self._reap()

    def _end_hung(self) -> None:
        """End the jobs whose main thread has stood still for too long: other threads may go on, as
        a sampler does."""
        now = time.monotonic()
        for pid in self.jobs:
            ticks = _cpu_ticks(pid)
            if self.seen.get(pid, (-1, 0.0))[0] != ticks:
                self.seen[pid] = (ticks, now)
            elif now - self.seen[pid][1] > self.patience[pid]:
                self.hung.add(pid)
                _kill(pid)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        request = _receive(connection)
        if request is None:
            connection.close()
            return
        content, files = request
        warm = os.getpid()
        pid = os.fork()
        if pid == 0:
            work = _serve_base if "serve" in content else _perform
            self._become(work, content, files, warm)
        for file in files:
            os.close(file)
        if "serve" in content:
            self.holders[pid] = connection
        else:
            self.jobs[pid], self.patience[pid] = connection, content["hang_seconds"]

    def _become(
        self,
        work: Callable[[dict[str, Any], list[int]], int],
        content: dict[str, Any],
        files: list[int],
        warm: int,
    ) -> None:
        """In the forked process: do the work, and end."""
        status = 1
        try:
            die_with_parent(warm)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.listener.close()
            for connection in (*self.jobs.values(), *self.holders.values()):
                connection.close()
            os.environ.clear()
            os.environ.update(content["environment"])
            status = work(content, files)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self.jobs or self.holders:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self.jobs.pop(pid, None) or self.holders.pop(pid, None)
            patience = self.patience.pop(pid, 0)
            self.seen.pop(pid, None)
            if connection is not None:
                said = {
                    "status": os.waitstatus_to_exitcode(status),
                    "hung": patience if pid in self.hung else 0,
                }
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps(said).encode())
                connection.close()
            self.hung.discard(pid)


def _perform(content: dict[str, Any], files: list[int]) -> int:
    """A job, which speaks through its asker; its exit status."""
    from meetara_build.engine.job import perform

    os.dup2(files[0], 1)
    os.dup2(files[1], 2)
    return perform(content)


def _serve_base(content: dict[str, Any], files: list[int]) -> int:
    """Hold a base, and fork jobs that inherit it until none has come for a while."""
    for file in files:
        os.close(file)
    hold(Base(*content["base"]))
    gc.collect()
    gc.freeze()
    _Server(Path(content["serve"])).serve()
    return 0


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    files = array.array("i")
    connection.settimeout(REQUEST_SECONDS)
    try:
        line, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(2 * files.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files.frombytes(data)
        while not line.endswith(b"\n"):
            piece = connection.recv(1 << 16)
            if not piece:
                raise ConnectionError
            line += piece
        if len(files) != 2:
            raise ValueError("no output to write to")
        request = parse_json(line)
    except (OSError, ValueError):
        for file in files:
            os.close(file)
        return None
    connection.settimeout(None)
    return request, list(files)


def _gone(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except OSError:
        return True


def _cpu_ticks(pid: int) -> int:
    """What a process's main thread has used so far, in the kernel's ticks; always another number
    where it does not say."""
    with (
        contextlib.suppress(OSError, IndexError, ValueError),
        open(f"/proc/{pid}/task/{pid}/stat", "rb") as file,
    ):
        fields = file.read().rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])
    return time.monotonic_ns()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def load_all() -> None:
    """Import every stage with all its libraries, and run nothing that would start a thread."""
    for name in NAMES:
        with contextlib.suppress(SetupError):  # a stage that lacks an extra says so when it runs
            module = importlib.import_module(f"meetara_build.stages.{name}")
            getattr(module, "warm", lambda: None)()
    importlib.import_module("meetara_build.context.sampler")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a job's output is a log file


def main() -> None:
    """Serve at the socket path given as the one argument."""
    server = _Server(Path(sys.argv[1]))
    load_all()
    gc.collect()
    gc.freeze()  # what is never collected is never copied into a job's own memory
    server.serve()


if __name__ == "__main__":
    main()
