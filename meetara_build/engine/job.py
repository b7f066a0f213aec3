"""The part of a stage run that does the stage's work: in a process of its own, forked from the warm
one."""

import contextlib
import errno
import importlib
import inspect
import json
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.errors import (
    UNEXPECTED,
    JobMemoryError,
    MeetaraError,
    UnwritableError,
    add_code,
)
from meetara_build.graph import OBSERVER
from meetara_build.graph.stages import STAGE
from meetara_build.outside import first_line

FIGURES = "figures.json"
"""Written beside the output: the stage's metrics and what the work took."""

FAILURE = "failure.json"
"""Written beside the output: why the work failed, as a `Failure`."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
"""What the system says where a disk is full, a quota used up, or a place not ours to write."""

FULL_BELOW = 1 << 20
"""Free bytes below which a disk is full for whatever a stage writes; the libraries that write hide
the reason."""


LIMITS = {
    resource.RLIMIT_AS: "-v",
    resource.RLIMIT_DATA: "-d",
    resource.RLIMIT_FSIZE: "-f",
    resource.RLIMIT_CPU: "-t",
}
"""Limits of a shell's that a build can hit, and their option of ``ulimit``; unlimited, unless
someone set them."""


class Failure(NamedTuple):
    """Why something failed: a message for people, and the error's code for programs."""

    message: str
    code: str

    def __str__(self) -> str:
        return add_code(self.message, self.code)


def perform(request: Mapping[str, Any]) -> int:
    """Run a stage's function and write its figures; the exit status.

    ``request`` holds stage, recipe, inputs (name → path), output (path), threads, gpus and debug;
    root and about, for what it reports of itself. Faults go to standard error.
    """
    try:
        with warnings.catch_warnings():
            # What libraries warn each other of would hide the one line that a person needs.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"meetara_build\.")
            _perform(request)
    except Exception as error:
        return _report_failure(request, error)
    return 0


def _report_failure(request: Mapping[str, Any], error: Exception) -> int:
    if not (isinstance(error, OSError) and error.errno in UNWRITABLE) and is_full(
        Path(request["output"])
    ):
        error = OSError(errno.ENOSPC, "")
    failure = explain(error, request["output"])
    if failure.code == UNEXPECTED:
        report = output_report(Path(request["report"]))
        words = (
            f"unexpected {type(error).__name__}: {first_line(error)}; the traceback is in {report}"
        )
        failure = Failure(f"{words}: please report it", UNEXPECTED)
    print(f"{request['name']}: {failure}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        Path(request["output"]).with_name(FAILURE).write_text(json.dumps(failure), "utf-8")
    if request.get("debug"):
        traceback.print_exc()
    return 1


def cannot_write(error: OSError, where: str) -> str:
    """One message for a full or read-only disk."""
    reason = os.strerror(error.errno or 0)
    hint = (error.errno == errno.EFBIG and shell_limits()) or "make room or mend the rights"
    return f"{error.filename or where}: cannot be written ({reason}); {hint}, then build again"


def shell_limits() -> str:
    """What to do about the limits that this process was started with, which nobody but a person
    sets; "" where there is none."""
    found = [
        f"`ulimit {option}` is {limit if option == '-t' else -(-limit // 1024)}"
        for kind, option in LIMITS.items()
        if (limit := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY
    ]
    return (
        f"a limit of the shell is the likely cause ({', '.join(found)}): raise it" if found else ""
    )


def explain(error: Exception, where: str = "a file") -> Failure:
    """Whatever went wrong in a sentence for a person; more of what no one foresaw with
    ``--debug``."""
    if isinstance(error, MeetaraError):
        return Failure(str(error), error.code)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return Failure(cannot_write(error, where), UnwritableError.code)
    if _ran_out_of_memory(error):
        hint = "use a smaller base, fewer jobs at once, or a machine with more memory"
        return Failure(f"not enough memory; {shell_limits() or hint}", JobMemoryError.code)
    return Failure(
        f"unexpected {type(error).__name__}: {error}; run it again with --debug, and report what "
        "that shows",
        UNEXPECTED,
    )


def _ran_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from meetara_build.training.faults import ran_out_of_memory

    return ran_out_of_memory(error)


def is_full(place: Path) -> bool:
    """Whether nothing more can be written below a folder."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(place).free < FULL_BELOW
    return False


def _perform(request: Mapping[str, Any]) -> None:
    module = importlib.import_module(f"meetara_build.stages.{request['stage']}")
    recipe = STAGE[request["stage"]].load_model().model_validate(request["recipe"])
    _use_threads(request["threads"])
    _silence_transformers()
    output = Path(request["output"])
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    started, cpu = time.monotonic(), _cpu_seconds()
    with _watch(request, module.run) as more:
        metrics = module.run(recipe, inputs, output, **more)
    figures = {
        "metrics": metrics,
        "pid": os.getpid(),
        "seconds": time.monotonic() - started,
        "cpu_seconds": _cpu_seconds() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    output.with_name(FIGURES).write_text(json.dumps(figures))


@contextlib.contextmanager
def _watch(request: Mapping[str, Any], stage: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Have the context hear what the job uses, and the agents that observe it see how far it is;
    what its function takes for it."""
    from meetara_build.context.outbox import Outbox
    from meetara_build.context.sampler import ProgressReporter, sample_resources

    outbox = Outbox(Path(request["root"]), **request["about"])
    with _observers(request) as ask, sample_resources(outbox, gpu=request["gpus"] > 0):
        report = ProgressReporter(outbox)

        def observe(progress: Any) -> Any:
            if progress.fault is None:
                report(progress)
            return ask(progress)

        yield {"observe": observe} if "observe" in inspect.signature(stage).parameters else {}


@contextlib.contextmanager
def _observers(request: Mapping[str, Any]) -> Iterator[Callable[[Any], Any]]:
    """The agents that watch the job and act on it: those whose files are among its inputs."""
    files = {
        name.removeprefix(OBSERVER): Path(path)
        for name, path in request["inputs"].items()
        if name.startswith(OBSERVER)
    }
    if not files:
        yield lambda progress: None
        return
    from meetara_build.hosting.observers import Observers

    def report_lost(name: str, fault: str) -> None:
        print(
            f"{request['name']}: observer '{name}' {fault}; training goes on without it",
            file=sys.stderr,
            flush=True,
        )
        _tell_lost(request, name, fault)

    observers = Observers(files, Path(request["report"]).with_suffix(""), report_lost)
    try:
        yield observers
    finally:
        observers.close()


def _tell_lost(request: Mapping[str, Any], name: str, fault: str) -> None:
    from meetara_build.context.outbox import Outbox

    outbox = Outbox(Path(request["root"]))
    said = {"text": f"stopped watching: {fault}", "stage": request["about"]["stage"]}
    outbox.put("message", about="note", sender=name, domain=request["about"]["domain"], body=said)
    outbox.close()


def _use_threads(threads: int) -> None:
    """Bytes depend on the number of threads, so it comes from the recipe and never from the
    machine."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _silence_transformers() -> None:
    """Errors alone, and no bars: what it warns of in its own log (an attention, a kernel, an
    unknown key) a stage proves or refuses."""
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def output_report(path: Path) -> Path:
    """Write the traceback of the exception being handled to a file."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    return path
