"""A domain's present build becomes what later builds of it are held to."""

from pathlib import Path

from meetara_build.config.accepted import write_accepted
from meetara_build.errors import ConfigError, RegressionError
from meetara_build.graph import Graph
from meetara_build.outside import parse_json
from meetara_build.plan import FRESH, Plan
from meetara_build.stages.recipes.accepted import Accepted


def accept_build(graph: Graph, made: Plan, domain: str) -> Path:
    """Write how a domain's present build scored below conf/accepted/; where. One that is held back
    because it is worse than the accepted one may take its place, and no other that is held back.

    Raises:
        ConfigError: the domain is not up to date, or held back.
    """
    waiting = [
        item.step.name for item in made.items if item.step.target == domain and item.action != FRESH
    ]
    if waiting:
        raise ConfigError(
            f"{domain}: {waiting[0]} is not up to date, so there is nothing to accept; run "
            f"`meetara-build build {domain}` first"
        )
    refusal = made.manifests["package", domain].held_back
    if refusal is not None and refusal["code"] != RegressionError.code:
        raise ConfigError(
            f"{domain}: its models are held back, see `meetara-build status {domain}`; accept a "
            "build that is packaged"
        )
    step = graph.step("evaluate", domain)
    path = graph.root / step.place.folder / "evaluation.json"
    found = parse_json(path.read_text(encoding="utf-8"))
    build = Accepted(base=str(step.recipe["base"]), records=found["by_record"])
    return write_accepted(graph.project / "conf", domain, build)
