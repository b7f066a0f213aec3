"""The part of a stage run that does the stage's work: in a process of its own, forked from the warm one."""

import contextlib
import errno
import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meetara_build.errors import MeetaraError

FIGURES = "figures.json"
"""Written beside the output: the stage's metrics and what the work took."""


def perform(request: Mapping[str, Any]) -> int:
    """Run a stage's function and write its figures; the exit status.

    ``request`` holds stage, recipe, inputs (name → path), output (path), threads and debug. Faults go to standard error.
    """
    try:
        _perform(request)
    except MeetaraError as error:
        _say(request, str(error))
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return _unexpected(request, error)
        _say(request, cannot_write(error, request["output"]))
        return 1
    except MemoryError:
        _say(request, "not enough memory; use a smaller base, fewer jobs at once, or a machine with more memory")
        return 1
    except Exception as error:
        return _unexpected(request, error)
    return 0


def cannot_write(error: OSError, where: str) -> str:
    """One message for a full or read-only disk."""
    reason = os.strerror(error.errno or 0)
    return f"{error.filename or where}: cannot be written ({reason}); make room or mend the rights, then build again"


def _perform(request: Mapping[str, Any]) -> None:
    module = importlib.import_module(f"meetara_build.stages.{request['stage']}")
    _use_threads(request["threads"])
    output = Path(request["output"])
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    started, cpu = time.monotonic(), _cpu_seconds()
    metrics = module.run(request["recipe"], inputs, output)
    figures = {
        "metrics": metrics,
        "pid": os.getpid(),
        "seconds": time.monotonic() - started,
        "cpu_seconds": _cpu_seconds() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    output.with_name(FIGURES).write_text(json.dumps(figures))


def _use_threads(threads: int) -> None:
    """Bytes depend on the number of threads, so it comes from the recipe and never from the machine."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _say(request: Mapping[str, Any], message: str) -> None:
    print(f"{request['name']}: {message}", file=sys.stderr, flush=True)
    if request.get("debug"):
        traceback.print_exc()


def _unexpected(request: Mapping[str, Any], error: Exception) -> int:
    report = output_report(Path(request["report"]))
    _say(request, f"unexpected {type(error).__name__}: {error}; the traceback is in {report}: please report it")
    return 1


def output_report(path: Path) -> Path:
    """Write the traceback of the exception being handled to a file."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    return path
