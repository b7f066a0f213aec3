"""All that an agent imports of this package: what it may do, what it is given, and how it answers.

An agent is a module with one or more of the functions of ``Agent``, each marked ``@hookimpl``: the
file ``plugins/NAME.py`` of a project, or a module that an installed package names as an entry point
of the group ``meetara_build.agents``.
"""

from collections.abc import Iterable

import pluggy

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Context, Domain, Run
from meetara_build.config.keys import is_within
from meetara_build.training.settings import Action, Progress

__all__ = [
    "Action",
    "Agent",
    "Context",
    "Domain",
    "Progress",
    "Proposal",
    "Run",
    "hookimpl",
    "is_within",
]

hookspec = pluggy.HookspecMarker("meetara_build")
hookimpl = pluggy.HookimplMarker("meetara_build")


class Agent:
    """Every function is optional. Each runs in a process of its own, with a time-out: what it
    raises, prints or keeps to itself harms nobody."""

    @hookspec
    def propose(self, context: Context) -> Iterable[Proposal]:  # type: ignore[empty-body]
        """Between builds: changes of the configuration. Pure: the same context gives the same
        proposals."""

    @hookspec
    def observe(self, progress: Progress) -> Action | None:
        """After every step of a training whose ``training.observers`` name this agent, and when a
        step failed: what to do.

        Pure too: only then does a training that was killed and goes on give the same adapter.
        """

    @hookspec
    def insights(self, context: Context) -> Iterable[str]:  # type: ignore[empty-body]
        """What the last build showed, a line each, for people who ask (`meetara-build propose`)."""
