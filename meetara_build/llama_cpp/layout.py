"""How a GGUF file is laid out, byte by byte: its keys as they are stored, and where each tensor
lies; and a file like another, but for some keys and tensors.

ggml's own functions hand out values, not bytes; ``gguf.GGUFReader`` takes seconds for a vocabulary.
"""

import mmap
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt

from meetara_build.errors import ArtifactError

TEXT, LIST = int(gguf.GGUFValueType.STRING), int(gguf.GGUFValueType.ARRAY)
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type."""
ALIGNMENT = "general.alignment"
Weights = npt.NDArray[np.generic]
"""A tensor's numbers as they are stored."""
PIECE = 1 << 24
"""Bytes that are copied at a time."""


class Place(NamedTuple):
    """Where a tensor lies: bytes from the start of the file, and its shape as numpy has it."""

    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    size: int


class Layout(NamedTuple):
    """A file's keys, each with the type and value as stored; its tensors; and the bytes between
    keys and weights, which list the tensors."""

    version: int
    keys: dict[str, bytes]
    tensors: dict[str, Place]
    listing: bytes
    alignment: int
    start: int

    def text(self, key: str) -> str:
        """A text by its key; empty where there is none."""
        stored = self.keys.get(key, b"")
        return stored[12:].decode("utf-8", "replace") if stored[:4] == _uint32(TEXT) else ""


def read_layout(path: Path) -> Layout:
    """How a file is laid out; no weight is read.

    Raises:
        ArtifactError: it is no whole GGUF file.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _Reader(content).read()
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ArtifactError(
            f"{path.name}: not a GGUF file, or one cut short. Build it again, or fetch it again."
        ) from error


def write_changed(
    source: Path, target: Path, texts: Mapping[str, str], weights: Iterable[tuple[str, Weights]]
) -> None:
    """Write ``source`` anew with other texts for some of its keys and other bytes for some of its
    tensors; all else is its own bit for bit.

    ``source`` is never written into: it may share its bytes with the store.

    Raises:
        ArtifactError: ``source`` is no whole GGUF file.
    """
    layout = read_layout(source)
    assert {*texts} <= {*layout.keys}, f"{source.name} lacks some of {', '.join(texts)}"
    head = [b"GGUF", _uint32(layout.version), _uint64(len(layout.tensors), len(layout.keys))]
    for key, stored in layout.keys.items():
        head += [_text(key), _uint32(TEXT) + _text(texts[key]) if key in texts else stored]
    whole = b"".join([*head, layout.listing])
    with source.open("rb") as old, target.open("wb") as new:
        new.write(whole + bytes(-len(whole) % layout.alignment))
        shift = new.tell() - layout.start
        _copy(old, new, layout.start)
        for name, content in weights:
            place = layout.tensors[name]
            assert content.nbytes == place.size, name
            new.seek(place.start + shift)
            new.write(np.ascontiguousarray(content).data)


def list_differences(one: Layout, other: Layout, own: Iterable[str]) -> list[str]:
    """The keys that two files do not have alike, byte for byte, but for those that are each one's
    own."""
    kept = {*one.keys, *other.keys} - {*own}
    return sorted(key for key in kept if one.keys.get(key) != other.keys.get(key))


def _copy(source: IO[bytes], target: IO[bytes], start: int) -> None:
    source.seek(start)
    while piece := source.read(PIECE):
        target.write(piece)


class _Reader:
    """Reads from the start to where the weights begin."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, 0

    def read(self) -> Layout:
        if self._take(4) != b"GGUF":
            raise ValueError("no GGUF")
        version = self._uint32()
        count, pairs = self._uint64(), self._uint64()
        keys = {self._read_text(): self._read_stored() for _ in range(pairs)}
        begin = self.at
        found = [self._read_tensor() for _ in range(count)]
        listing = self.content[begin : self.at]
        alignment = struct.unpack("<I", keys[ALIGNMENT][4:])[0] if ALIGNMENT in keys else 32
        start = self.at + -self.at % alignment
        tensors = {name: place._replace(start=start + place.start) for name, place in found}
        if any(place.start + place.size > len(self.content) for place in tensors.values()):
            raise ValueError("cut short")
        return Layout(version, keys, tensors, listing, alignment, start)

    def _read_tensor(self) -> tuple[str, Place]:
        name = self._read_text()
        dimensions = [self._uint64() for _ in range(self._uint32())]
        kind = gguf.GGMLQuantizationType(self._uint32())
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        place = Place(
            kind,
            tuple(reversed(dimensions)),
            self._uint64(),
            prod(dimensions) // weights * size,
        )
        return name, place

    def _read_stored(self) -> bytes:
        begin = self.at
        self._pass(self._uint32())
        return self.content[begin : self.at]

    def _pass(self, kind: int) -> None:
        """Go on to the end of a value."""
        if kind == TEXT:
            self._read_text()
        elif kind == LIST:
            inner, count = self._uint32(), self._uint64()
            if inner in WIDTHS:
                self._take(count * WIDTHS[inner])
            else:
                for _ in range(count):
                    self._pass(inner)
        else:
            self._take(WIDTHS[kind])

    def _read_text(self) -> str:
        return self._take(self._uint64()).decode("utf-8", "surrogateescape")

    def _uint32(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _uint64(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _take(self, count: int) -> bytes:
        taken = self.content[self.at : self.at + count]
        if len(taken) != count:
            raise ValueError("cut short")
        self.at += count
        return taken


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _uint64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return _uint64(len(raw)) + raw
