"""The resident trainer: a process that holds a base, and answers whoever asks for gradients, several
in one pass.

It is started by the first training that needs it, and stops by itself when none has been there for a
while. A training that goes away is forgotten; who is slow is not waited for. Whoever is told that
trainings cannot share this base or device trains alone.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from meetara_build import sockets
from meetara_build.outside import first_line
from meetara_build.training.kernels.lora import attach
from meetara_build.training.kernels.packed import lay
from meetara_build.training.model import load_model
from meetara_build.training.precision import DTYPES
from meetara_build.training.slots.company import Company, let_go
from meetara_build.training.slots.messages import (
    Memory,
    Reader,
    open_memory,
    read_records,
    send,
)
from meetara_build.training.slots.model import Result, Work
from meetara_build.training.slots.proof import CPU, NotSharedError, make_probe, make_slots

IDLE_SECONDS = 20.0
COMPANY_SECONDS = 0.2
"""So long the first who asks waits for others at most: for who is there, and does not ask."""
SEND_SECONDS = 5.0
"""A training that is stopped must not hold up the others for longer."""
ENVIRONMENT = {
    # Products whose bits depend on no free workspace, and not on how a sum is split.
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "CUBLASLT_WORKSPACE_SIZE": "1",
}


class Base(NamedTuple):
    """What all trainings of a trainer have in common, as JSON has it.

    Attributes:
        folder: the base's.
        lora: ``lora`` of the recipe.
        slots, tokens: a pass's shape.
    """

    folder: str
    precision: str
    device: str
    lora: dict[str, Any]
    threads: int
    slots: int
    tokens: int


class _Guest:
    """A training that is there: its memory once it has said who it is, and what it asks for."""

    def __init__(self, connection: socket.socket) -> None:
        self.reader = Reader(connection)
        self.memory: Memory | None = None
        self.asked: dict[str, Any] | None = None
        self.since = 0.0


class Trainer:
    """Serves at a socket, once its base is loaded; ``passes`` counts what it has computed."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.company: Company | None = None
        self.refusal, self.device, self.passes = "", "cpu", 0
        self.guests: list[_Guest] = []

    def load(self, base: Base) -> None:
        """Load the base and prove that it may be shared; whatever forbids it is told to who asks."""
        try:
            self.company = _load(base)
            self.device = torch.cuda.get_device_name() if base.device == "cuda" else base.device
        except NotSharedError as fault:
            self.refusal = str(fault)
        except Exception as fault:
            self.refusal = f"the resident trainer could not begin ({first_line(fault)})"
        let_go()  # of a base that those who are refused load themselves

    def serve(self, idle_seconds: float) -> None:
        """Answer until none has been there for a while."""
        last = time.monotonic()
        while self.guests or time.monotonic() - last < idle_seconds:
            heard = [guest.reader.connection for guest in self.guests]
            ready, _, _ = select.select([self.listener, *heard], [], [], self._patience())
            if self.guests:
                last = time.monotonic()
            if self.listener in ready:
                self._welcome()
                last = time.monotonic()
            for guest in [one for one in self.guests if one.reader.connection in ready]:
                self._hear(guest)
            if self._is_time():
                self._pass()

    def _patience(self) -> float:
        """Seconds until a pass has to begin, or a look around is due."""
        asked = [guest.since for guest in self.guests if guest.asked]
        due = min(asked) + COMPANY_SECONDS - time.monotonic() if asked else 1.0
        return min(max(due, 0.0), 1.0)

    def _welcome(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.guests.append(_Guest(connection))

    def _hear(self, guest: _Guest) -> None:
        """What a guest says: who it is, or what it asks for; it is gone if that makes no sense."""
        try:
            said = guest.reader.read()
            if said is None:
                return
            if guest.memory is None:
                self._greet(guest, said)
            else:
                guest.asked, guest.since = said, time.monotonic()
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            self._forget(guest)

    def _greet(self, guest: _Guest, said: dict[str, Any]) -> None:
        answer = {"refused": self.refusal, "pid": os.getpid(), "device": self.device}
        if self.company is not None:
            if said["numbers"] != self.company.model.numbers:
                raise ValueError("an adapter of another shape")
            guest.memory = open_memory(guest.reader.files[0], said["numbers"])
        self._send(guest, answer)

    def _is_time(self) -> bool:
        """Whether no one else can be expected in the next pass."""
        asked = [guest for guest in self.guests if guest.asked]
        if not asked or self.company is None:
            return False
        there = sum(guest.memory is not None for guest in self.guests)
        waited = time.monotonic() - min(guest.since for guest in asked)
        return len(asked) >= min(self.company.most, there) or waited >= COMPANY_SECONDS

    def _pass(self) -> None:
        """Compute for those who have asked first, and answer them."""
        assert self.company is not None
        asked = sorted((one for one in self.guests if one.asked), key=lambda one: one.since)
        served, works = list[_Guest](), list[Work]()
        for guest in asked[: self.company.most]:
            try:
                works.append(_read_work(guest, self.company.model.tokens))
                served.append(guest)
            except (ValueError, KeyError, TypeError, IndexError):
                self._forget(guest)
        results = self.company.compute(works) if works else []
        self.passes += 1
        for guest, result in zip(served, results, strict=True):
            guest.asked = None
            self._answer(guest, result, len(served))

    def _answer(self, guest: _Guest, result: Result | None, together: int) -> None:
        assert self.company is not None and guest.memory is not None
        state = {"reason": self.company.reason, "size": self.company.size, "together": together}
        if result is None:
            self._send(guest, {**state, "fault": "memory"})
            return
        if result.gradients is not None:
            guest.memory.gradients.copy_(result.gradients)
        given = result.gradients is not None
        loss = {"total": result.total, "by_record": result.by_record, "gradients": given}
        self._send(guest, {**state, **loss})

    def _send(self, guest: _Guest, message: dict[str, Any]) -> None:
        connection = guest.reader.connection
        try:
            connection.settimeout(SEND_SECONDS)
            send(connection, message)
            connection.setblocking(False)
        except OSError:
            self._forget(guest)

    def _forget(self, guest: _Guest) -> None:
        if guest in self.guests:
            self.guests.remove(guest)
        guest.reader.close()


def _load(base: Base) -> Company:
    torch.set_num_threads(base.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    model = load_model(Path(base.folder), DTYPES[base.precision], base.device)
    adapted = attach(model, base.lora, seed=0)
    probe = make_probe(adapted, base.tokens, base.slots)
    return Company(make_slots(adapted, base.tokens, probe), base.slots, probe)


def _read_work(guest: _Guest, tokens: int) -> Work:
    assert guest.asked is not None and guest.memory is not None
    records = read_records(guest.asked["records"])
    if sum(len(record.ids) for record in records) > tokens:
        raise ValueError("more than a slot holds")
    row = lay(records, CPU, every_token=bool(guest.asked["every_token"]))
    return Work(guest.memory.weights, row, guest.asked["counted_tokens"])


def main() -> None:
    """Serve at the socket path given as the first argument, with the base that the second
    describes."""
    path = Path(sys.argv[1])
    trainer = Trainer(sockets.listen(path))
    identity = path.stat().st_ino
    trainer.load(Base(**json.loads(sys.argv[2])))
    trainer.serve(IDLE_SECONDS)
    with contextlib.suppress(OSError):
        if path.stat().st_ino == identity:
            path.unlink()
    trainer.serve(0)  # whoever connected before the name was gone


if __name__ == "__main__":
    main()
