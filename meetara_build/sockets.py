"""Processes that serve others of the same user on this machine: where their sockets lie, and how
the first who needs one starts it.

Beside a socket ``NAME.sock`` lie ``NAME.lock``, held while someone starts the process, and
``NAME.log``, what it prints.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from meetara_build.errors import SetupError

READ_ONCE = (
    "CUDA",
    "GGML_",
    "HF_",
    "LD_",
    "MKL_",
    "OMP_",
    "PYTHON",
    "PYTORCH_",
    "TORCH",
    "TRANSFORMERS_",
)
"""How the variables begin that libraries read as they are imported: no process can be another's
that has other ones."""


def name_process(*parts: object) -> str:
    """A name for the process that serves this user with this Python, this state of the package's
    code, what libraries read once, and these JSON values."""
    package = Path(__file__).parent
    code = sorted((str(path), path.stat().st_mtime_ns) for path in package.rglob("*.py"))
    environment = sorted(
        (key, value) for key, value in os.environ.items() if key.startswith(READ_ONCE)
    )
    text = json.dumps([sys.executable, code, environment, *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_folder() -> Path:
    """The folder of this user's sockets, made where it is not there.

    Raises:
        SetupError: it belongs to someone else.
    """
    folder = Path(tempfile.gettempdir()) / f"meetara-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode):
        raise SetupError(
            f"{folder}: belongs to another user; remove it, or set TMPDIR to a folder of yours"
        )
    return folder


def connect(connection: socket.socket, path: Path) -> None:
    """Connect to whoever listens at ``path``.

    Raises:
        OSError: no one does.
    """
    with _shorten(path) as name:
        connection.connect(name)


def listen(path: Path, waiting: int = 512) -> socket.socket:
    """A socket at ``path``, at which so many may wait to be heard."""
    listener = socket.socket(socket.AF_UNIX)
    # Bound under another name first: a socket that can be seen can be connected to.
    hidden = path.with_suffix(".new")
    hidden.unlink(missing_ok=True)
    with _shorten(hidden) as name:
        listener.bind(name)
    listener.listen(waiting)
    hidden.rename(path)
    return listener


def start_once(path: Path, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Start a process that listens at ``path``, unless someone else just did, and wait until it
    does; whether it came so far."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            connect(probe, path)
            return True
        path.unlink(missing_ok=True)
        with path.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env=environment,
            )
        while not path.exists():
            if process.poll() is not None:
                return False
            time.sleep(0.01)
    return True


def read_last_words(path: Path) -> str:
    """The last line of what the process of this socket has printed."""
    log = path.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    return next((line for line in reversed(log.split("\n")) if line.strip()), "no reason given")


@contextlib.contextmanager
def _shorten(path: Path) -> Iterator[str]:
    """A name for a socket that fits: the kernel takes about a hundred characters, temporary folders
    may have more."""
    if sys.platform != "linux":
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
