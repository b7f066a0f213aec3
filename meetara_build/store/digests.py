"""sha256 of files, remembered: a file whose size, times and inode are as before is not read again.

The change time is among them, which no copying sets back; and what was changed in the very moment
in which it was read is read again the next time, since such a change could leave all of them as
they were.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.store.manifest import digest_file, digest_json, write_cache

TICK_NS = 20_000_000
"""File systems stamp changes with a clock that moves in steps of up to 10 ms."""

MOST_FILES = 10_000
"""In the folder of one source: one that was named by mistake, ``/`` or ``~``, would be read for
hours."""

State = list[Any]


class Digests:
    """Digests by path, kept in a file; ``save`` writes it if anything was read."""

    def __init__(self, kept_in: Path) -> None:
        self.kept_in = kept_in
        try:
            content = parse_json(kept_in.read_bytes())
        except (OSError, ValueError):
            content = None
        self.kept: dict[str, Any] = content if isinstance(content, dict) else {}
        self.used: dict[str, Any] = {}

    def file(self, path: str | Path) -> str:
        """sha256 of a file's bytes.

        Raises:
            OSError: it is not there or cannot be read.
        """
        return self._recall(str(path), digest_file, _file_state)

    def source(self, path: str | Path) -> str:
        """sha256 of a raw source: a file's bytes, or the names and bytes of all files in a folder.

        Raises:
            OSError: it is not there or cannot be read.
        """
        return self._recall(str(path), digest_source, state)

    def _recall(
        self, path: str, digest: Callable[[Path], str], state: Callable[[str], State]
    ) -> str:
        if path not in self.used:
            seen, kept = state(path), self.kept.get(path)
            if isinstance(kept, list) and len(kept) == 2 and kept[0] == seen:
                self.used[path] = kept
            else:
                found = digest(Path(path))
                self.used[path] = [
                    seen if is_settled(seen) and state(path) == seen else None,
                    found,
                ]
        return str(self.used[path][1])

    def save(self) -> None:
        """Keep what was looked at since this was made, if it differs from what was kept."""
        lasting = {path: entry for path, entry in self.used.items() if entry[0] is not None}
        known = {
            path: entry for path, entry in self.kept.items() if path not in self.used
        } | lasting
        if known != self.kept:
            self.kept = known
            write_cache(self.kept_in, json.dumps(known))


def state(path: str | Path) -> State:
    """Size, times and inode of a file, or of every file in a folder.

    Raises:
        OSError: it is not there, is neither, or holds what is neither; or the folder holds more
            than a source can.
    """
    if os.path.isdir(path):
        return [[file, *_file_state(file)] for file in list_files(path)]
    return _file_state(path)


def list_files(folder: str | Path) -> list[str]:
    """Every file in a folder and in those below it, links to folders among them, sorted.

    Raises:
        OSError: one of them cannot be read, or there are more than a source can hold.
    """
    found: list[str] = []
    _collect_files(str(folder), (), found)
    return sorted(found)


def _collect_files(folder: str, above: tuple[str, ...], found: list[str]) -> None:
    here = os.path.realpath(folder)
    if here in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                _collect_files(entry.path, (*above, here), found)
            else:
                found.append(entry.path)
            if len(found) > MOST_FILES:
                raise OSError(errno.EFBIG, f"a folder of more than {MOST_FILES:,} files", folder)


def _file_state(path: str | Path) -> State:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device, which would be read without end
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def is_settled(seen: State) -> bool:
    """Whether the last change lies far enough back to be told from one that would come now."""
    if seen and isinstance(seen[0], list):
        return all(is_settled(entry[1:]) for entry in seen)
    return not seen or seen[2] < time.time_ns() - TICK_NS


def digest_source(path: Path) -> str:
    """sha256 of a raw source: a file's bytes, or the names and bytes of all files in a folder."""
    if path.is_dir():
        return digest_json(
            {os.path.relpath(file, path): digest_file(Path(file)) for file in list_files(path)}
        )
    return digest_file(path)
