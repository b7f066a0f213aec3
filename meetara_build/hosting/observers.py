"""Agents that watch a training: each is shown every step, and the first by name that wants
something has its way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from meetara_build.hosting.hooks import prepare_plugin
from meetara_build.hosting.host import Host
from meetara_build.hosting.supervisor import Work
from meetara_build.training.settings import Action, Point, Progress

SECONDS = 10.0
"""How long an agent may take over a step: a training waits for it."""
LOADING_SECONDS = 60.0
"""How long it may take to be imported, beside what the training itself begins with."""


class Observers:
    """The agents that watch one training, each in a process of its own. One that is at fault
    watches no longer.

    Call it with a training's progress, as ``training.settings.Observer``.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        logs: Path,
        lost: Callable[[str, str], None],
        seconds: float = SECONDS,
    ) -> None:
        """Start a process for each file, by the agents' names.

        ``logs`` is a folder for what they print. ``lost`` is told the name and the fault of an
        agent that is let go.
        """
        self.lost, self.seconds = lost, seconds
        self.shown: Sequence[Point] = ()
        self.ready = False
        self.hosts = {
            name: Host(name, partial(prepare_watcher, name, files[name]), logs / f"{name}.log")
            for name in sorted(files)
        }
        for host in self.hosts.values():
            host.send({"hook": "verify"})

    def __call__(self, progress: Progress) -> Action | None:
        """What the agents say to a step."""
        self._see_that_they_are_ready()
        known = len(self.shown) if _goes_on(self.shown, progress.curve) else 0
        self.shown = progress.curve
        numbers = {
            field.name: getattr(progress, field.name)
            for field in fields(progress)
            if field.name != "curve"
        }
        request = {
            "hook": "observe",
            "known": known,
            "points": progress.curve[known:],
            "progress": numbers,
        }
        for host in self.hosts.values():
            host.send(request)
        said = [self._answer(name, self.seconds) for name in list(self.hosts)]
        return next((Action(action) for action in said if action is not None), None)

    def close(self) -> None:
        """End their processes."""
        for host in self.hosts.values():
            host.close()

    def _see_that_they_are_ready(self) -> None:
        """Wait, once, until each has been loaded."""
        if self.ready:
            return
        self.ready = True
        for name in list(self.hosts):
            hooks = self._answer(name, LOADING_SECONDS)
            if hooks is not None and "observe" not in hooks:
                self._let_go(name, "has no function observe(progress) marked @hookimpl")

    def _answer(self, name: str, seconds: float) -> Any:
        answer = self.hosts[name].answer(seconds)
        if answer.fault is not None:
            self._let_go(name, answer.fault)
        return answer.value

    def _let_go(self, name: str, fault: str) -> None:
        self.hosts.pop(name).close()
        self.lost(name, fault)


def prepare_watcher(name: str, file: Path) -> Work:
    """Load a plugin to be called with all points so far, of which only new ones are sent."""
    work, curve = prepare_plugin(name, file, {}), list[Point]()

    def observe(request: Any) -> Any:
        if request["hook"] != "observe":
            return work(request)
        curve[request["known"] :] = map(tuple, request["points"])
        progress = {**request["progress"], "curve": tuple(curve)}
        return work({"hook": "observe", "arguments": {"progress": progress}})

    return observe


def _goes_on(before: Sequence[Point], curve: Sequence[Point]) -> bool:
    """Whether a curve begins with one that was shown before: not so where a race begins its second
    run."""
    return not before or (len(curve) >= len(before) and curve[len(before) - 1] == before[-1])
