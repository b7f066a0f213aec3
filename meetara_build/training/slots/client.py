"""What a training has of its trainer: a computation like that of a model of its own."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from meetara_build import sockets
from meetara_build.errors import BuildError, TrainingError
from meetara_build.training.batches import fill
from meetara_build.training.chat import Encoded
from meetara_build.training.schedule import count_tokens
from meetara_build.training.slots.messages import (
    Memory,
    Reader,
    make_file,
    open_memory,
    send,
    write_records,
)
from meetara_build.training.slots.proof import CPU
from meetara_build.training.slots.trainer import ENVIRONMENT, Base

ANSWER_SECONDS, BEGIN_SECONDS = 300.0, 500.0
"""After so long without an answer the trainer hangs: a pass takes much less, and so does loading a
base. Less than what the warm process takes for a job that hangs."""
START_SECONDS = 120.0
TRIES = 3
"""A trainer may end just as it is spoken to."""


class RefusedError(Exception):
    """The trainer serves no one; its text says why."""


class SlotComputation:
    """A training's share of a resident trainer's passes: see ``computation.Computation``.

    Where the trainer is lost, another is begun and asked again: all that a training knows is its
    own, so nothing is lost with it.

    Attributes:
        company: why a pass serves this training alone; empty where others may be in it.
        device_name: where the trainer computes.
        passes, shared: how many answers it had, and in how many of these others were served too.
    """

    def __init__(self, base: Base, name: str, weights: Mapping[str, nn.Parameter], origin: str):
        """``name`` tells the base's weights from others; ``weights`` are the adapter's.

        Raises:
            RefusedError: trainings cannot share the base or the device.
            BuildError: no trainer begins.
        """
        self.origin, self.company, self.device_name = origin, "", base.device
        self.passes = self.shared = 0
        self._base, self._weights, self._size = base, list(weights.values()), base.slots
        self._path = find_socket(base, name)
        numbers = sum(weight.numel() for weight in self._weights)
        self._file = make_file(numbers)
        self._memory: Memory = open_memory(self._file, numbers)
        try:
            self._reader, self._pid = self._join()
        except OSError as fault:
            raise self._make_error(fault, "at its start") from None

    @property
    def device(self) -> torch.device:
        """Where the adapter lies: not where the trainer computes."""
        return CPU

    def backward(
        self, records: Sequence[Encoded], counted_tokens: int, *, every_token: bool = False
    ) -> tuple[float, list[float]]:
        """See ``computation.Computation``."""
        said = self._ask(records, counted_tokens, every_token)
        if said["gradients"]:
            parts = self._split(self._memory.gradients)
            for weight, part in zip(self._weights, parts, strict=True):
                own = part.view_as(weight)
                weight.grad = own.clone() if weight.grad is None else weight.grad.add_(own)
        return said["total"], said["by_record"]

    def mean_loss(
        self, examples: Sequence[Encoded], *, every_token: bool = False
    ) -> tuple[float, int]:
        """See ``computation.Computation``."""
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
        total = 0.0
        for run in fill(order, examples, self._base.tokens):
            said = self._ask([examples[index] for index in run], None, every_token)
            total += said["total"]
        count = sum(count_tokens(record, every_token) for record in examples)
        if not count:
            raise TrainingError("validation: no token counts: give records with an answer")
        return total / count, count

    def describe(self) -> dict[str, object]:
        """The shape of passes, and how many there were."""
        return {
            "slots": self._base.slots,
            "slots_at_once": self._size,
            "slot_tokens": self._base.tokens,
            "passes": self.passes,
            "shared_passes": self.shared,
        }

    def close(self) -> None:
        """Leave the trainer to others."""
        self._reader.close()
        os.close(self._file)

    def _split(self, flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(flat, [weight.numel() for weight in self._weights])

    def _ask(
        self, records: Sequence[Encoded], counted_tokens: int | None, every_token: bool
    ) -> dict[str, Any]:
        """The trainer's answer.

        Raises:
            MemoryError: not even this training alone fits into its memory.
            BuildError: it was lost, and so was the next one.
        """
        with torch.no_grad():
            parts = self._split(self._memory.weights)
            for weight, part in zip(self._weights, parts, strict=True):
                part.copy_(weight.reshape(-1))
        message = {
            "records": write_records(records),
            "counted_tokens": counted_tokens,
            "every_token": every_token,
        }
        said = self._exchange(message)
        self.company, self._size = said["reason"], said["size"]
        if said.get("fault"):
            raise MemoryError
        self.passes += 1
        self.shared += said["together"] > 1
        return said

    def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            send(self._reader.connection, message)
            return _read_answer(self._reader)
        except OSError as fault:
            print(
                f"the resident trainer {_describe(fault)}; another is begun",
                file=sys.stderr,
                flush=True,
            )
            if isinstance(fault, TimeoutError):  # one that only hangs would be found again
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self._pid, signal.SIGKILL)
        self._reader.close()
        try:
            self._reader, self._pid = self._join()
            send(self._reader.connection, message)
            return _read_answer(self._reader)
        except OSError as fault:
            raise self._make_error(fault, "twice") from None
        except RefusedError as fault:
            raise BuildError(
                f"the resident trainer that was begun anew cannot go on ({fault}); build again"
            ) from None

    def _make_error(self, fault: OSError, when: str) -> BuildError:
        return BuildError(
            f"the resident trainer {_describe(fault)}, {when}; build again, or set slots to 1 in the "
            f"machine's file below conf/hardware/ (its log is {self._path.with_suffix('.log')})"
        )

    def _join(self) -> tuple[Reader, int]:
        """Say who this is to the trainer, which is started where there is none; its process id."""
        for _ in range(TRIES):
            reader = Reader(self._connect())
            reader.connection.settimeout(BEGIN_SECONDS)
            try:
                send(reader.connection, {"numbers": self._memory.weights.numel()}, self._file)
                said = _read_answer(reader)
                break
            except ConnectionError:  # it was about to end
                reader.close()
                time.sleep(0.1)
        else:
            raise ConnectionError
        reader.connection.settimeout(ANSWER_SECONDS)
        if said["refused"]:
            reader.close()
            raise RefusedError(said["refused"])
        self.device_name = said["device"]
        return reader, said["pid"]

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + START_SECONDS
        module = "meetara_build.training.slots.trainer"
        command = [sys.executable, "-m", module, str(self._path), json.dumps(self._base._asdict())]
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                sockets.connect(connection, self._path)
                return connection
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                connection.close()
            if not sockets.start_once(self._path, command, {**os.environ, **ENVIRONMENT}):
                break
        raise BuildError(
            f"the resident trainer cannot start ({sockets.read_last_words(self._path)}); set slots "
            "to 1 in the machine's file below conf/hardware/, or mend that; its log is "
            f"{self._path.with_suffix('.log')}"
        )


def find_socket(base: Base, name: str) -> Path:
    """Where the trainer listens that holds a base with weights of this name."""
    return sockets.find_folder() / f"trainer-{sockets.name_process(base, name)}.sock"


def _read_answer(reader: Reader) -> dict[str, Any]:
    while (said := reader.read()) is None:
        pass
    return said


def _describe(fault: OSError) -> str:
    return "gave no answer in time" if isinstance(fault, TimeoutError) else "was ended"
