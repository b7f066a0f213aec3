"""Agents at work, each in a process of its own: one that hangs, crashes, floods or raises is ended,
and the rest go on.

The process is a fresh Python, whatever threads the asker has used. What it is to do goes there as a
pickle; what comes back is JSON: an answer is data, never code. This keeps accidents apart; it is no
prison: a plugin is code that you run.
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

from meetara_build.hosting.hooks import is_answer
from meetara_build.hosting.supervisor import LARGEST_ANSWER, LONGEST_FAULT, Prepare

LARGEST_LOG = 1_000_000
"""Bytes of what an agent prints; the rest is left out."""
PATIENCE_SECONDS = 5.0
"""How long a request may take to be read, and a process to end."""
PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from meetara_build.hosting.supervisor import main; main(*map(int, sys.argv[1:]))"
)


class Answer(NamedTuple):
    """What an agent said: ``value`` is None where there is a ``fault``."""

    value: Any
    fault: str | None
    seconds: float


class Host:
    """An agent's process, which answers requests one after the other until it is closed or at
    fault."""

    def __init__(self, name: str, prepare: Prepare, log: Path) -> None:
        """Start it; ``prepare`` runs there and gives the function that answers. What it prints goes
        to ``log``."""
        self.name = name
        self.log = log
        self.hook = ""
        self.asked = 0
        self.started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self.talk, its_talk = socket.socketpair()
        with its_talk, tempfile.TemporaryFile() as work:  # a pipe would be full before it is read
            pickle.dump(sys.path, work)
            pickle.dump(prepare, work)
            work.seek(0)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, f"{os.getpid()}", f"{its_talk.fileno()}"],
                bufsize=0,
                stdin=work,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[its_talk.fileno()],
                start_new_session=True,  # Ctrl-C is its asker's to answer
            )
        assert self.process.stdout is not None
        self.copier = threading.Thread(
            target=_copy_beginning, args=(self.process.stdout, log), daemon=True
        )
        self.copier.start()

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask; ``answer`` has what comes of it."""
        self.hook = request["hook"]
        self.asked += 1
        self.started = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended or does not listen: answer says so
            self.talk.settimeout(PATIENCE_SECONDS)
            self.talk.sendall(json.dumps({**request, "number": self.asked}).encode() + b"\n")

    def answer(self, seconds: float) -> Answer:
        """What it says within so many seconds of having been asked; where it is at fault, it is
        ended."""
        heard = bytearray()
        while b"\n" not in heard and len(heard) <= LARGEST_ANSWER:
            try:
                self.talk.settimeout(max(self.started + seconds - time.monotonic(), 1e-6))
                piece = self.talk.recv(1 << 18)
            except TimeoutError:
                remedy = "a training does not wait longer"
                if self.hook in ("propose", "insights"):
                    remedy = "see agents.seconds in conf/build.yaml"
                return self._end(f"gave no answer within {seconds:g} s and was stopped; {remedy}")
            except OSError:
                piece = b""
            if not piece:
                ending = _describe_ending(self.close(patience=1.0))
                return self._end(f"ended without an answer ({ending}); {self.log} says more")
            heard += piece
        said = _read_answer(heard)
        if said is None or said.get("number") != self.asked:
            return self._end(
                "answered something else than it was asked, and was stopped; "
                "it must not write to its parent"
            )
        if "fault" in said:
            return self._make_answer(None, _show_safely(str(said["fault"])))
        value = said.get("value")
        if not is_answer(self.hook, value):
            return self._end(
                f"answered {self.hook} with another shape of value; see docs/how-to.md"
            )
        if self.hook == "insights" and value is not None:
            value = [_show_safely(text) for text in value]
        return self._make_answer(value, None)

    def close(self, patience: float = 0.0) -> int:
        """End the process and what it has started, unless it ends by itself so soon; the exit
        status, as a shell gives it."""
        with contextlib.suppress(OSError):
            self.talk.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # an agent may have stopped its supervisor
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.copier.join(PATIENCE_SECONDS)
        self.talk.close()
        return self.process.wait()

    def _end(self, fault: str) -> Answer:
        self.close()
        return self._make_answer(None, fault)

    def _make_answer(self, value: Any, fault: str | None) -> Answer:
        return Answer(value, fault, time.monotonic() - self.started)


def ask_all(
    prepared: Mapping[str, Prepare], request: Mapping[str, Any], seconds: float, logs: Path
) -> dict[str, Answer]:
    """Ask several agents the same, as many at once as there are cores; their answers by name, in
    that order."""
    return {name: one for name, [one] in ask_in_turn(prepared, [request], seconds, logs).items()}


def ask_in_turn(
    prepared: Mapping[str, Prepare],
    requests: Sequence[Mapping[str, Any]],
    seconds: float,
    logs: Path,
) -> dict[str, list[Answer]]:
    """Ask each of several agents one thing after the other, so many seconds for each; of one at
    fault the answers end there."""
    hosts = list[Host]()

    def ask(host: Host) -> list[Answer]:
        answers = list[Answer]()
        for request in requests:
            host.send(request)
            answers.append(host.answer(seconds))
            if answers[-1].fault is not None:
                break
        host.close()
        return answers

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            # All of them by this thread: the end of the one that starts a process ends that.
            hosts += (Host(name, one, logs / f"{name}.log") for name, one in prepared.items())
            return dict(zip(prepared, pool.map(ask, hosts), strict=True))
        finally:
            for host in hosts:
                host.close()


def _copy_beginning(printed: IO[bytes], log: Path) -> None:
    """Keep the beginning of what is printed; read all of it, so that nobody waits for room."""
    with printed, log.open("ab", buffering=0) as file:
        while piece := printed.read(1 << 16):
            with contextlib.suppress(OSError):  # a full disk is no reason to stop reading
                file.write(piece[: max(0, LARGEST_LOG - file.tell())])


def _read_answer(heard: bytearray) -> dict[str, Any] | None:
    """What one line of JSON says that is a finite object, and not too long; None for anything
    else."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    line, _, more = heard.partition(b"\n")
    try:
        said = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(said, dict) and not more and len(line) <= LARGEST_ANSWER
    return said if fits else None


def _describe_ending(status: int) -> str:
    number = status - 128 if status > 128 else -status
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"


def _show_safely(text: str) -> str:
    """Text that is safe to print: one line, not long, no control characters."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(line.split())[:LONGEST_FAULT]
