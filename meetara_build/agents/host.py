"""Agents at work, each in a process of its own: one that hangs, crashes, floods or raises is ended, and the rest go on.

What crosses between the processes is JSON: an agent's answer is data, never code. This keeps accidents apart; it is no prison: a
plugin is code that you run.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from meetara_build.plugins import GROUP
from meetara_build.processes import die_with_parent

MOST_PROPOSALS = 300
"""In one answer: more is a flood."""
LARGEST_ANSWER = 4_000_000
"""Bytes of JSON."""
MEMORY_BYTES = 4 << 30
"""What an agent may allocate beside what its parent had."""
HOOKS = ("propose", "observe", "insights")

Work = Callable[[Any], Any]
"""What a process does with each request: JSON in, JSON out."""


class Answer(NamedTuple):
    """What an agent said: ``value`` is None where there is a ``fault``."""

    value: Any
    fault: str | None
    seconds: float


class Host:
    """A process that answers requests one after the other, until it is closed or at fault."""

    def __init__(self, name: str, prepare: Callable[[], Work], log: Path) -> None:
        """Start it; ``prepare`` runs there and gives the function that answers. What it prints goes to ``log``."""
        context = multiprocessing.get_context("fork")
        self.name, self.started = name, time.monotonic()
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, prepare, log, os.getpid()), daemon=True)
        self.process.start()
        other.close()

    def send(self, request: Any) -> None:
        """Ask; ``answer`` has what comes of it."""
        self.started = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended: answer says so
            self.connection.send_bytes(json.dumps(request).encode())

    def answer(self, seconds: float) -> Answer:
        """What it says within so many seconds of having been asked; where it is at fault, it is ended."""
        left = seconds - (time.monotonic() - self.started)
        if not self.connection.poll(max(left, 0.0)):
            return self._ended(
                f"said nothing within {seconds:g} s and was stopped; see agents.seconds in conf/build.yaml"
            )
        try:
            said = json.loads(self.connection.recv_bytes(LARGEST_ANSWER))
        except EOFError:
            self.process.join(1.0)
            return self._ended(f"its process ended (exit status {self.process.exitcode}); its log says more")
        except (OSError, ValueError, RecursionError):
            return self._ended(f"answered with what is no JSON, or more than {LARGEST_ANSWER // 1_000_000} MB of it")
        if not isinstance(said, dict) or set(said) - {"value", "fault"}:
            return self._ended("answered something else than was asked")
        fault = said.get("fault")
        return Answer(said.get("value"), None if fault is None else str(fault)[:2000], self._seconds())

    def close(self) -> None:
        """End the process, and whatever it has started."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self.process.kill()
        self.process.join(1.0)

    def _ended(self, fault: str) -> Answer:
        self.close()
        return Answer(None, fault, self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self.started


def ask_all(prepared: Mapping[str, Callable[[], Work]], request: Any, seconds: float, logs: Path) -> dict[str, Answer]:
    """Ask several agents the same, as many at once as there are cores; their answers by name, in that order."""
    waiting, at_work = list(prepared.items()), dict[Connection, Host]()
    found: dict[str, Answer] = {}
    while waiting or at_work:
        while waiting and len(at_work) < (os.cpu_count() or 1):
            name, prepare = waiting.pop(0)
            host = Host(name, prepare, logs / f"{name}.log")
            host.send(request)
            at_work[host.connection] = host
        first = min(host.started for host in at_work.values())
        ready = wait(list(at_work), max(0.0, first + seconds - time.monotonic()))
        late = [at for at, host in at_work.items() if time.monotonic() - host.started >= seconds]
        for connection in {*ready, *late}:
            host = at_work.pop(connection)  # type: ignore[arg-type]
            found[host.name] = host.answer(seconds)
            host.close()
    return {name: found[name] for name in prepared}


def plugin(name: str, file: Path, given: Mapping[str, Any]) -> Callable[[], Work]:
    """What a plugin's process does: call the hook that a request names. ``given`` are the hooks' arguments that are no JSON."""

    def prepare() -> Work:
        manager = _registered(name, file)

        def work(request: Any) -> Any:
            hook = request["hook"]
            if hook == "verify":
                return [hook for hook in HOOKS if getattr(manager.hook, hook).get_hookimpls()]
            arguments = {**given, **request.get("arguments", {})}
            answers = getattr(manager.hook, hook)(**{key: _understood(key, value) for key, value in arguments.items()})
            return _plain(hook, answers[0]) if answers else None

        return work

    return prepare


def _registered(name: str, file: Path) -> Any:
    """The plugin, verified and registered.

    Raises:
        pluggy.PluginValidationError: a function is marked that is no hook, or takes what no hook gives.
        ValueError: no function is marked.
    """
    import pluggy

    from meetara_build.agents import Agent

    manager = pluggy.PluginManager("meetara_build")
    manager.add_hookspecs(Agent)
    manager.register(_module(name, file), name)
    manager.check_pending()
    if not manager.get_hookcallers(manager.get_plugin(name)):
        raise ValueError(f"has none of the functions {', '.join(HOOKS)} marked @hookimpl; see the README")
    return manager


def _module(name: str, file: Path) -> ModuleType:
    from importlib.metadata import entry_points

    if points := entry_points(group=GROUP, name=name):
        loaded: ModuleType = next(iter(points)).load()
        return loaded
    spec = importlib.util.spec_from_file_location(f"meetara_agents_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _understood(name: str, value: Any) -> Any:
    """An argument as the hook takes it."""
    from meetara_build.training.settings import Progress

    return Progress(**value) if name == "progress" else value


def _plain(hook: str, answer: Any) -> Any:
    """An answer as JSON values.

    Raises:
        ValueError: it is none that the hook may give.
    """
    from meetara_build.agents.suggestion import Proposal

    if hook == "observe":
        return None if answer is None else str(answer)
    if answer is None:
        return []
    if isinstance(answer, str | Mapping) or is_dataclass(answer) or not hasattr(answer, "__iter__"):
        raise ValueError(f"{hook} gives a {type(answer).__name__}; give a list, or yield")
    several = list(islice(answer, MOST_PROPOSALS + 1))
    if len(several) > MOST_PROPOSALS:
        raise ValueError(f"{hook} gives more than {MOST_PROPOSALS}; give the best ones")
    wanted = str if hook == "insights" else Proposal
    for one in several:
        if not isinstance(one, wanted):
            raise ValueError(f"{hook} gives a {type(one).__name__} among others; give {wanted.__name__} only")
    return [one if hook == "insights" else {**asdict(one), "evidence": [*map(str, one.evidence)]} for one in several]


def _serve(connection: Connection, prepare: Callable[[], Work], log: Path, parent: int) -> None:
    """The life of an agent's process."""
    os.setsid()
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's to answer
    with contextlib.suppress(ValueError, OSError):
        used = _address_space()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    with _printing_to(log):
        work: Work | None = None
        while True:
            try:
                request = json.loads(connection.recv_bytes())
            except (EOFError, OSError):
                return
            try:
                work = work or prepare()
                said = {"value": work(request)}
                text = json.dumps(said, allow_nan=False)
            except BaseException as error:  # an agent may raise anything, SystemExit too
                text = json.dumps({"fault": _said(error)})
            connection.send_bytes(text.encode())


def _said(error: BaseException) -> str:
    """A fault in a line, with the place in the agent's own file where it has one."""
    import traceback

    traceback.print_exception(error)
    lines = str(error).strip().splitlines() or ["no reason given"]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((str(Path(__file__).parent), sys.prefix))]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {lines[-1]}{where}"


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        sys.stdout.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        yield


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
