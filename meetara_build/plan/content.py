"""A plan as JSON values, as ``schema.json`` beside this file describes them; and what has changed
since one was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from meetara_build.graph import Graph
from meetara_build.plan import FRESH, MAYBE, RESTORE, RUN, Item, Plan
from meetara_build.plan.base_origins import base_origins
from meetara_build.plan.causes import ABOVE, Cause, recipe_causes
from meetara_build.plan.data_losses import data_losses
from meetara_build.plan.estimate import Estimate, Total
from meetara_build.plan.held_back import list_held_back

VERSION = 3


def content(
    graph: Graph,
    made: Plan,
    estimates: Mapping[str, Estimate],
    total: Total | None,
    domains: Sequence[str],
    profile: str,
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """A plan; ``whole`` adds what each step is made from, so that it can be said later what has
    changed since."""
    counts = {action.lower(): made.count(action) for action in (RUN, RESTORE, MAYBE, FRESH)}
    found = {
        "version": VERSION,
        "project": str(graph.project),
        "profile": profile,
        "domains": list(domains),
        "overrides": list(graph.overrides.words),
        "counts": counts,
        "items": [_item(graph, item, estimates.get(item.step.name)) for item in made.to_do()],
        "estimate": total._asdict() if total else None,
        "base_origins": [origin._asdict() for origin in base_origins(graph, domains)],
        "data_losses": [lost.as_json() for lost in data_losses(graph, made)],
        "held_back": [one._asdict() for one in list_held_back(made)],
    }
    return found | (
        {"made_from": {step.name: step.made_from for step in graph.above(graph.ends(domains))}}
        if whole
        else {}
    )


def _item(graph: Graph, item: Item, estimate: Estimate | None) -> dict[str, Any]:
    return {
        "step": item.step.name,
        "stage": item.step.stage,
        "target": item.step.target,
        "action": item.action,
        "causes": [_cause(graph, cause) for cause in item.causes],
        "inherited": [_cause(graph, cause) for cause in item.inherited],
        "waits_for": list(item.waits),
        "fingerprint": item.step.fingerprint,
        "key": item.key,
        "estimate": estimate._asdict() if estimate else None,
    }


def _cause(graph: Graph, cause: Cause) -> dict[str, Any]:
    return {**cause._asdict(), "text": cause.text(), "decision": decision(graph, cause)}


def decision(graph: Graph, cause: Cause) -> dict[str, Any] | None:
    """The agent's decision that a changed key comes from: base value, overlay value, agent and
    reason."""
    folder, _, file = cause.where.rpartition("/")
    if folder != "conf/overlay":
        return None
    for change in graph.changes.get(file.removesuffix(".yaml"), ()):
        if (
            change["agent"]
            and change["path"] == cause.where
            and change["key"] in (cause.key, f"domain.{cause.key}")
        ):
            return {
                "base": change["below"],
                "overlay": change["value"],
                "agent": change["agent"],
                "reason": change["reason"],
            }
    return None


def stale_reasons(graph: Graph, kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was when a plan was kept: a line for each cause, with the steps that it
    reaches."""
    lines: list[str] = []
    reached: dict[Cause, list[str]] = {}
    before, after = kept["made_from"], now["made_from"]
    for name in sorted({*before, *after}):
        if name not in after:
            lines.append(f"{name}: is no longer part of the build")
        elif name not in before:
            lines.append(f"{name}: is new")
        elif before[name] != after[name]:
            target, _, stage = name.rpartition("/")
            step = graph.step(stage, target)
            for cause in recipe_causes(graph, step, before[name]):
                reached.setdefault(cause, []).append(name)
    direct = {cause: names for cause, names in reached.items() if cause.kind != ABOVE}
    lines += [
        f"{cause.text()} ({_name_action(names)})" for cause, names in (direct or reached).items()
    ]
    if lines:
        return lines
    one, other = (
        {item["step"]: (item["action"], item["key"]) for item in plan["items"]}
        for plan in (kept, now)
    )
    for name in sorted({*one, *other}):
        was, is_now = one.get(name, (FRESH, ""))[0], other.get(name, (FRESH, ""))[0]
        if one.get(name) != other.get(name):
            other_inputs = (
                "its inputs are others" if was == is_now else f"was {was}, is {is_now} now"
            )
            lines.append(f"{name}: {other_inputs}")
    return lines


def _name_action(names: Sequence[str]) -> str:
    """The first of some steps, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
