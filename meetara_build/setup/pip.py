"""This environment's pip, as set-up runs it: its output in a log file, its last error in the
message."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from meetara_build.errors import SetupError

Listen = Callable[[str], None]
"""Called with each line that pip prints."""

UNREACHABLE = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "NewConnectionError",
    "timed out",
)
UNKNOWN = ("No matching distribution found", "Could not find a version")


def run_pip(
    *words: str,
    what: str,
    log: Path,
    listen: Listen | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run ``pip WORDS``; what it prints is added to ``log``.

    Raises:
        SetupError: it failed; ``what`` could not be done, with pip's own reason and what to do.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    lines: list[str] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as kept:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                lines.append(line.rstrip())
                if listen:
                    listen(line)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.wait() != 0:
        raise SetupError(
            f"{what}: {_reason(lines)} (pip's whole output: {log}), then run `meetara-build setup` "
            "again"
        )


def _reason(lines: list[str]) -> str:
    """Why pip failed, and what to do about it."""
    text = "\n".join(lines)
    if any(word in text for word in UNREACHABLE):
        return "pip cannot reach the package index; check the network, a proxy, or PIP_INDEX_URL"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if any(word in text for word in UNKNOWN):
        return (
            "the package index does not have it "
            f"({errors[-1] if errors else 'pip gave no reason'}); check name and version"
        )
    if "No space left on device" in text:
        return "the disk is full; make room"
    signs = ("error:", "CMake Error")
    found = (line.strip() for line in lines if any(sign in line for sign in signs))
    compiler = [line for line in found if "subprocess-exited-with-error" not in line]
    return f"pip failed ({(compiler or errors or ['it gave no reason'])[0][:300]}); mend that"
