"""What a plugin's process does with a request: it calls the hook, and makes JSON of the answer."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from meetara_build.agents import Action, Agent, Progress, Proposal
from meetara_build.config.plugins import GROUP, is_project_file
from meetara_build.errors import AgentError
from meetara_build.hosting.supervisor import Work

HOOKS = ("propose", "observe", "insights")
MOST_PROPOSALS = 300
"""In one answer: more is a flood."""
MOST_EVIDENCE = 50
"""Of one proposal; what comes after it is left out."""


def prepare_plugin(name: str, file: Path, given: Mapping[str, Any]) -> Work:
    """Load a plugin. ``given`` are the hooks' arguments that are no JSON.

    Raises:
        AgentError: a function is marked that is no hook, or takes what no hook gives, or none is
            marked.
    """
    manager = pluggy.PluginManager("meetara_build")
    manager.add_hookspecs(Agent)
    module = _load_module(name, file)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        reason = str(error).removesuffix(f" in plugin {error.plugin!r}").splitlines()[-1]
        raise AgentError(
            f"{reason}; the hooks are propose(context), observe(progress) and insights(context)"
        ) from None
    if not manager.get_hookcallers(module):
        raise AgentError(
            f"has none of the functions {', '.join(HOOKS)} marked @hookimpl; see docs/how-to.md"
        )

    def work(request: Any) -> Any:
        hook = request["hook"]
        if hook == "verify":
            return [hook for hook in HOOKS if getattr(manager.hook, hook).get_hookimpls()]
        arguments = {**given, **request.get("arguments", {})}
        if "progress" in arguments:
            arguments["progress"] = Progress(**arguments["progress"])
        answers = getattr(manager.hook, hook)(**arguments)
        return make_plain(hook, answers[0]) if answers else None

    return work


def make_plain(hook: str, answer: Any) -> Any:
    """An answer as JSON values.

    Raises:
        AgentError: it is none that the hook may give.
    """
    if hook == "observe":
        if answer is not None and answer not in list(Action):
            raise AgentError(f"observe gives {answer!r}; give None or one of {', '.join(Action)}")
        return answer
    if answer is None:
        return []
    if isinstance(answer, str | Mapping | Proposal) or not hasattr(answer, "__iter__"):
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
    return [_make_content(one) if isinstance(one, Proposal) else one for one in several]


def is_answer(hook: str, value: Any) -> bool:
    """Whether a JSON value is of the shape that a hook's answer has."""
    if value is None or hook == "observe":
        return value is None or value in list(Action)
    wanted = dict if hook == "propose" else str
    return (
        isinstance(value, list)
        and len(value) <= MOST_PROPOSALS
        and all(isinstance(one, wanted) for one in value)
    )


def _make_content(proposal: Proposal) -> dict[str, Any]:
    """A proposal as JSON values."""
    evidence = proposal.evidence
    several = [evidence] if isinstance(evidence, str) else islice(evidence, MOST_EVIDENCE)
    content = {**vars(proposal), "evidence": [str(one) for one in several]}
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise AgentError(
            f"the proposal for '{proposal.key}' is no finite JSON ({error}); use plain numbers and "
            "text"
        ) from None
    return content


def _load_module(name: str, file: Path) -> ModuleType:
    if not is_project_file(file):
        from importlib.metadata import entry_points  # slow to import

        for point in entry_points(group=GROUP, name=name):
            installed: ModuleType = point.load()
            return installed
    spec = importlib.util.spec_from_file_location(f"meetara_agents_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
