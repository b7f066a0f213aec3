"""Text files as numbered lines, however they were saved: gzip, UTF-8 or UTF-16, line ends of Unix,
Windows or old Macs."""

import codecs
import gzip
import io
import json
import re
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path, PurePath
from typing import IO, cast

from meetara_build.errors import DataError
from meetara_build.outside import show_line

HEAD = 1 << 20  # bytes that tell how a file was saved
GZIP = b"\x1f\x8b"
ESCAPED = re.compile("[\udc80-\udcff]")  # what stands for a byte that is not UTF-8

# What a file that is no text begins with; the zip of a workbook differs from others by the names in
# it.
OTHERS = (
    (b"PK\x03\x04", "a zip archive: unpack it (`unzip {name}`) and name the file in it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as CSV (UTF-8) there"),
    (b"PAR1", "Parquet: give the file the ending .parquet"),
    (b"BZh", "packed by bzip2: unpack it, e.g. `bunzip2 -k {name}`"),
    (b"\xfd7zXZ\x00", "packed by xz: unpack it, e.g. `unxz -k {name}`"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it, e.g. `unzstd {name}`"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it (`7z x {name}`) and name the file in it"),
    (b"Rar!", "a rar archive: unpack it and name the file in it"),
    (b"ARROW1", "an Arrow file: save it as Parquet"),
    (b"SQLite format 3", "an SQLite database: export a table as CSV"),
    (b"%PDF", "a PDF: copy its texts into a JSONL or CSV file"),
)
WORKBOOK = "an Excel workbook: save the sheet as CSV (UTF-8) there"
TAR = "a tar archive: unpack it (`tar -xf {name}`) and name the file in it"


def read_lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers; a byte that is not UTF-8 stays in its line as one of
    ``ESCAPED``.

    Raises:
        DataError: the file is no text (an archive, a workbook), or gzip or UTF-16 that is cut
            short.
    """
    with unpack(path, name) as file:
        head = file.read(HEAD)
        refuse_other(head, name)
        file.seek(0)
        encoding, errors = _encoding(head)
        start = head.decode(encoding, "ignore")[:-1]
        # Only where no line ends otherwise is a lone carriage return a line's end; then the reader
        # makes it "\n".
        newline = None if "\r" in start and "\n" not in start else "\n"
        with io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline) as lines:
            try:
                yield from enumerate(lines, 1)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{name}: is {encoding.upper()} that cannot be read: {error.reason}"
                ) from None


@contextmanager
def unpack(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is gzip.

    Raises:
        DataError: the file cannot be opened, or is gzip that is damaged.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{name}: cannot be read: {error.strerror}: mend the file's permissions"
        ) from None
    with file:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        try:
            with gzip.open(file) as unpacked:
                yield cast(IO[bytes], unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            problem = str(error).rstrip(".") or type(error).__name__
            raise DataError(
                f"{name}: is gzip that cannot be unpacked: {problem}: fetch the file again"
            ) from None


def refuse_other(head: bytes, name: str) -> None:
    """Refuse what is no text, with what to do about it.

    Raises:
        DataError: the file is an archive, a workbook, a database …
    """
    shown = shlex.quote(name)
    for magic, advice in OTHERS:
        if head.startswith(magic):
            workbook = magic == b"PK\x03\x04" and (
                name.casefold().endswith(".xlsx") or b"xl/" in head
            )
            raise DataError(f"{name}: is {WORKBOOK if workbook else advice.format(name=shown)}")
    if head[257:262] == b"ustar":
        raise DataError(f"{name}: is {TAR.format(name=shown)}")


def bad_byte(text: str) -> tuple[int, int] | None:
    """The first byte of a text that is not UTF-8: its position and its value."""
    found = ESCAPED.search(text)
    if found is None:
        return None
    before = text[: found.start()].encode("utf-8", "surrogateescape")
    return len(before), ord(found[0]) - 0xDC00


def advise_encoding(name: str) -> str:
    """The command that makes UTF-8 of a file that a Windows program has saved."""
    given, new = shlex.quote(name), shlex.quote(f"utf8-{PurePath(name).name.removesuffix('.gz')}")
    command = "iconv -f WINDOWS-1252 -t UTF-8"
    if name.casefold().endswith(".gz"):
        return f"`gunzip -c {given} | {command} > {new}`"
    return f"`{command} {given} > {new}`"


def excerpt(value: object, length: int = 40) -> str:
    """The beginning of a value, on one line and printable."""
    text = value if isinstance(value, str) else _dump(value)
    line = show_line(" ".join(text[: 4 * length].split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def kind(value: object) -> str:
    """What a JSON value is, in plain words."""
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        Decimal: "a number",
        str: "text",
        bytes: "bytes",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _encoding(head: bytes) -> tuple[str, str]:
    """How the text is encoded, and how Python is to take what is not: by the mark at the beginning,
    or by NULs in step."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32", "surrogatepass"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "surrogatepass"
    for encoding, pattern in (("utf-16-le", (True, False)), ("utf-16-be", (False, True))):
        if len(head) >= 4 and tuple(map(bool, head[:4])) == pattern * 2:
            return encoding, "surrogatepass"
    return "utf-8-sig", "surrogateescape"


def _dump(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, TypeError, ValueError):  # nested too deep; keys that are no texts
        return kind(value)
