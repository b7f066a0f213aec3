"""What a training and its trainer say to each other: JSON lines over a socket, and one file of
memory that both see.

The memory holds P weights and after them P gradients, float32. The training writes its weights
before it asks; the trainer writes gradients before it answers.
"""

import json
import mmap
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from meetara_build.outside import parse_json
from meetara_build.training.chat import Encoded

BYTES = 4
"""Of a number."""
LONGEST = 64 * 2**20
"""Bytes of a message: what says more is no training of ours."""


class Memory(NamedTuple):
    """Weights and gradients, [P] each, that lie in memory which another process sees too."""

    weights: Tensor
    gradients: Tensor


def make_file(numbers: int) -> int:
    """A file without a name for so many weights and gradients, as a descriptor."""
    if sys.platform == "linux":
        file = os.memfd_create("meetara-slot")
    else:
        with tempfile.TemporaryFile() as whole:
            file = os.dup(whole.fileno())
    os.ftruncate(file, 2 * numbers * BYTES)
    return file


def open_memory(file: int, numbers: int) -> Memory:
    """What lies in such a file; it may be closed then.

    Raises:
        ValueError: it is of another size.
    """
    if os.fstat(file).st_size != 2 * numbers * BYTES:
        raise ValueError("the shared memory is of another size")
    whole = torch.frombuffer(mmap.mmap(file, 2 * numbers * BYTES), dtype=torch.float32)
    return Memory(whole[:numbers], whole[numbers:])


def write_records(records: Sequence[Encoded]) -> list[Any]:
    """Records as JSON values."""
    return [
        [record.ids, [int(one) for one in record.mask], sorted(record.never)] for record in records
    ]


def read_records(values: Sequence[Any]) -> list[Encoded]:
    """The same records again."""
    return [
        Encoded(ids, [bool(one) for one in mask], frozenset(never)) for ids, mask, never in values
    ]


def send(connection: socket.socket, message: Mapping[str, Any], file: int | None = None) -> None:
    """Send a message, and with it a file's descriptor."""
    line = json.dumps(message).encode() + b"\n"
    if file is not None:
        socket.send_fds(connection, [line[:1]], [file])
        line = line[1:]
    connection.sendall(line)


class Reader:
    """Whole messages out of what comes in pieces; and the descriptors that came with them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.files: list[int] = []
        self._begun = b""

    def read(self) -> dict[str, Any] | None:
        """What has come, if that is a whole message; waits for no more than the connection does.

        Raises:
            ConnectionError: the other side is gone.
            ValueError: it says what is no message.
        """
        try:
            piece, files, _, _ = socket.recv_fds(self.connection, 1 << 16, 1)
        except BlockingIOError:
            return None
        self.files += files
        if not piece:
            raise ConnectionError("the other side is gone")
        self._begun += piece
        if len(self._begun) > LONGEST:
            raise ValueError("the message is too long")
        if not self._begun.endswith(b"\n"):
            return None
        line, self._begun = self._begun, b""
        said = parse_json(line)
        if not isinstance(said, dict):
            raise ValueError("no message")
        return said

    def close(self) -> None:
        """Close the connection, and the files that nobody took."""
        for file in self.files:
            os.close(file)
        self.files = []
        self.connection.close()
