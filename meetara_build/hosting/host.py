"""Agents at work, each in a process of its own: one that hangs, crashes, floods or raises is ended, and the rest go on.

What crosses between the processes is JSON: an agent's answer is data, never code. This keeps accidents apart; it is no prison: a
plugin is code that you run.
"""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from meetara_build.config.plugins import GROUP
from meetara_build.errors import AgentError
from meetara_build.hosting.supervisor import LARGEST_ANSWER, LONGEST_FAULT, Work, start
from meetara_build.training.settings import Action, Progress

__all__ = [
    "HOOKS",
    "MOST_PROPOSALS",
    "Answer",
    "Host",
    "Work",
    "ask_all",
    "ask_in_turn",
    "plain",
    "plugin",
]

MOST_PROPOSALS = 300
"""In one answer: more is a flood."""
MOST_EVIDENCE = 50
"""Of one proposal; what comes after it is left out."""
HOOKS = ("propose", "observe", "insights")
PATIENCE_SECONDS = 5.0
"""How long a request may take to be read, and a process to end."""


class Answer(NamedTuple):
    """What an agent said: ``value`` is None where there is a ``fault``."""

    value: Any
    fault: str | None
    seconds: float


class Host:
    """An agent's process, which answers requests one after the other until it is closed or at fault."""

    def __init__(self, name: str, prepare: Callable[[], Work], log: Path) -> None:
        """Start it; ``prepare`` runs there and gives the function that answers. What it prints goes to ``log``."""
        self.name, self.log, self.started = name, log, time.monotonic()
        self.request: Mapping[str, Any] = {}
        self.asked, self.heard, self.listening, self.status = 0, bytearray(), True, -1
        self.talk, its_talk = socket.socketpair()
        self.lifeline, its_lifeline = socket.socketpair()
        with its_talk, its_lifeline:
            self.keeper: int | None = start(prepare, its_talk, its_lifeline, log)

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask; ``answer`` has what comes of it."""
        self.asked += 1
        self.request, self.started = {**request, "number": self.asked}, time.monotonic()
        with contextlib.suppress(OSError):  # it has ended or does not listen: answer says so
            self.talk.settimeout(PATIENCE_SECONDS)
            self.talk.sendall(json.dumps(self.request).encode() + b"\n")

    def arrived(self) -> bool:
        """Take in what it has said, without waiting; whether that is a whole answer, too much for one, or the end."""
        while self.listening and b"\n" not in self.heard and len(self.heard) <= LARGEST_ANSWER:
            try:
                self.talk.settimeout(0)
                piece = self.talk.recv(1 << 18)
            except BlockingIOError:
                return False
            except OSError:
                piece = b""
            self.heard += piece
            self.listening = bool(piece)
        return True

    def answer(self, seconds: float) -> Answer:
        """What it says within so many seconds of having been asked; where it is at fault, it is ended."""
        while not self.arrived():
            if not wait([self.talk], max(self.started + seconds - time.monotonic(), 0.0)):
                of_policy = self.request["hook"] in ("propose", "insights")
                remedy = (
                    "see agents.seconds in conf/build.yaml"
                    if of_policy
                    else "a training does not wait longer"
                )
                return self._at_fault(
                    f"gave no answer within {seconds:g} s and was stopped; {remedy}"
                )
        if not self.listening:
            return self._at_fault(
                f"ended without an answer ({_ending(self.close(1.0))}); {self.log} says more"
            )
        line, _, more = bytes(self.heard).partition(b"\n")
        self.heard.clear()
        said = None if more or len(line) > LARGEST_ANSWER else _read(line)
        if not isinstance(said, dict) or said.get("number") != self.asked:
            return self._at_fault(
                "answered something else than it was asked, and was stopped; it must not write to its parent"
            )
        if "fault" in said:
            return Answer(None, _one_line(str(said["fault"])), self._seconds())
        hook, value = self.request["hook"], said.get("value")
        if not _fits(hook, value):
            return self._at_fault(
                f"answered {hook} with something of another shape; see docs/how-to.md"
            )
        if hook == "insights" and value is not None:
            value = [_one_line(text) for text in value]
        return Answer(value, None, self._seconds())

    def close(self, patience: float = 0.0) -> int:
        """End the process, and whatever it has started, unless it ends by itself so soon; the exit status, as a shell gives it."""
        if self.keeper is None:
            return self.status
        self.talk.close()
        if not self._gone(patience):
            with contextlib.suppress(OSError):
                self.lifeline.shutdown(socket.SHUT_WR)
            if not self._gone(PATIENCE_SECONDS):  # an agent may have stopped its keeper
                os.kill(self.keeper, signal.SIGCONT)
                if not self._gone(PATIENCE_SECONDS):
                    os.kill(self.keeper, signal.SIGKILL)
        self.lifeline.close()
        with contextlib.suppress(ChildProcessError):
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.keeper, 0)[1])
        self.keeper = None
        return self.status

    def _gone(self, seconds: float) -> bool:
        """Whether the keeper ends within so many seconds: nobody holds the other end of the lifeline then."""
        try:
            self.lifeline.settimeout(seconds)
            return not self.lifeline.recv(1)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True

    def _at_fault(self, fault: str) -> Answer:
        self.close()
        return Answer(None, fault, self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self.started


def ask_all(
    prepared: Mapping[str, Callable[[], Work]],
    request: Mapping[str, Any],
    seconds: float,
    logs: Path,
) -> dict[str, Answer]:
    """Ask several agents the same, as many at once as there are cores; their answers by name, in that order."""
    return {name: one for name, [one] in ask_in_turn(prepared, [request], seconds, logs).items()}


def ask_in_turn(
    prepared: Mapping[str, Callable[[], Work]],
    requests: Sequence[Mapping[str, Any]],
    seconds: float,
    logs: Path,
) -> dict[str, list[Answer]]:
    """Ask each of several agents one thing after the other, so many seconds for each; of one at fault the answers end there."""
    waiting, at_work = list(prepared.items()), list[Host]()
    found: dict[str, list[Answer]] = {name: [] for name in prepared}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < (os.cpu_count() or 1):
                name, prepare = waiting.pop(0)
                at_work.append(Host(name, prepare, logs / f"{name}.log"))
                at_work[-1].send(requests[0])
            first = min(host.started for host in at_work)
            ready = wait(
                [host.talk for host in at_work], max(0.0, first + seconds - time.monotonic())
            )
            for host in list(at_work):
                late = time.monotonic() - host.started >= seconds
                if late or (host.talk in ready and host.arrived()):
                    answers = found[host.name]
                    answers.append(host.answer(seconds))
                    if answers[-1].fault is None and len(answers) < len(requests):
                        host.send(requests[len(answers)])
                    else:
                        host.close()
                        at_work.remove(host)
    finally:
        for host in at_work:
            host.close()
    return found


def _read(line: bytes) -> Any:
    """A line of JSON that is finite; None for anything else."""
    try:
        return json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _fits(hook: str, value: Any) -> bool:
    """Whether a value is of the shape that a hook's answer has."""
    if hook == "observe":
        return value is None or value in list(Action)
    wanted = dict if hook == "propose" else str
    return value is None or (
        isinstance(value, list)
        and len(value) <= MOST_PROPOSALS
        and all(isinstance(one, wanted) for one in value)
    )


def _ending(status: int) -> str:
    """What an exit status says."""
    number = status - 128 if status > 128 else -status
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"


def _one_line(text: str) -> str:
    """Text that is safe to print: one line, not long, no control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[
        :LONGEST_FAULT
    ]


def plugin(name: str, file: Path, given: Mapping[str, Any]) -> Callable[[], Work]:
    """What a plugin's process does: call the hook that a request names. ``given`` are the hooks' arguments that are no JSON."""

    def prepare() -> Work:
        manager = _registered(name, file)

        def work(request: Any) -> Any:
            hook = request["hook"]
            if hook == "verify":
                return [hook for hook in HOOKS if getattr(manager.hook, hook).get_hookimpls()]
            arguments = {**given, **request.get("arguments", {})}
            answers = getattr(manager.hook, hook)(
                **{key: _understood(key, value) for key, value in arguments.items()}
            )
            return plain(hook, answers[0]) if answers else None

        return work

    return prepare


def _registered(name: str, file: Path) -> Any:
    """The plugin, verified and registered.

    Raises:
        AgentError: a function is marked that is no hook, or takes what no hook gives, or none is marked.
    """
    import pluggy

    from meetara_build.agents import Agent

    manager = pluggy.PluginManager("meetara_build")
    manager.add_hookspecs(Agent)
    module = _module(name, file)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        reason = str(error).strip().splitlines()[-1].partition(" in plugin <")[0]
        raise AgentError(
            f"{reason}; the hooks are propose(context), observe(progress) and insights(context)"
        ) from None
    if not manager.get_hookcallers(module):
        raise AgentError(
            f"has none of the functions {', '.join(HOOKS)} marked @hookimpl; see docs/how-to.md"
        )
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
    return Progress(**value) if name == "progress" else value


def plain(hook: str, answer: Any) -> Any:
    """An answer as JSON values.

    Raises:
        AgentError: it is none that the hook may give.
    """
    from meetara_build.agents.proposal import Proposal

    if hook == "observe":
        if answer is not None and answer not in list(Action):
            raise AgentError(f"observe gives {answer!r}; give None or one of {', '.join(Action)}")
        return answer
    if answer is None:
        return []
    if isinstance(answer, str | Mapping) or is_dataclass(answer) or not hasattr(answer, "__iter__"):
        raise AgentError(f"{hook} gives a {type(answer).__name__}; give a list, or yield")
    several = list(islice(answer, MOST_PROPOSALS + 1))
    if len(several) > MOST_PROPOSALS:
        raise AgentError(f"{hook} gives more than {MOST_PROPOSALS}; give the best ones")
    wanted = str if hook == "insights" else Proposal
    for one in several:
        if not isinstance(one, wanted):
            raise AgentError(
                f"{hook} gives a {type(one).__name__} among others; give {wanted.__name__} only"
            )
    return [_content(one) if isinstance(one, Proposal) else one for one in several]


def _content(proposal: Any) -> dict[str, Any]:
    """A proposal as JSON values."""
    content = {field.name: getattr(proposal, field.name) for field in fields(proposal)}
    evidence = content["evidence"]
    several = [evidence] if isinstance(evidence, str) else islice(evidence, MOST_EVIDENCE)
    content["evidence"] = [str(one) for one in several]
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise AgentError(
            f"the proposal for '{content['key']}' is no finite JSON ({error}); use plain numbers and text"
        ) from None
    return content
