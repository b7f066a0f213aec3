"""plan and apply: what a build would do, shown before it is done."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build import history
from meetara_build.artifact import write_text
from meetara_build.engine.snakemake import jobs_at_once, profile_hardware, profile_prices
from meetara_build.errors import ConfigError
from meetara_build.faces.output import print_json
from meetara_build.faces.plan_text import print_plan, print_proposals
from meetara_build.graph import CACHE, Graph, find_project, load
from meetara_build.nearest import nearest
from meetara_build.outside import parse_json, quote_command, read_file, show_line
from meetara_build.plan import Plan, plan
from meetara_build.plan.content import VERSION, content, stale_reasons
from meetara_build.plan.estimate import MODEL, Estimate, Estimator, Total, total
from meetara_build.plan.sight import Sight
from meetara_build.proposals import REJECTED, TAKEN, kept


class Planned(NamedTuple):
    """A plan and what it will take."""

    graph: Graph
    made: Plan
    estimates: dict[str, Estimate]
    total: Total
    profile: str


def project_graph(profile: str = "local") -> Graph:
    """The graph of the project we are in, for the machine that a profile names."""
    project = find_project()
    return load(project, profile_hardware(project, profile))


def wanted(graph: Graph, words: Sequence[str]) -> list[str]:
    """Domains named on the command line.

    Raises:
        ConfigError: there is no such domain, or build.yaml leaves it out.
    """
    for word in words:
        if word in graph.domains:
            continue
        if (graph.project / "conf" / "domain" / f"{word}.yaml").exists():
            raise ConfigError(f"{graph.project / 'conf' / 'build.yaml'}: domains: does not name '{word}'; add it there")
        raise ConfigError(f"unknown domain '{word}'{nearest(word, graph.domains)}")
    return list(dict.fromkeys(words))


def look(graph: Graph, domains: Sequence[str] = ()) -> Plan:
    """The plan for these domains, or for all; what was read for it is remembered for the next."""
    sight = Sight(graph)
    made = plan(graph, domains, sight)
    sight.save()
    return made


def estimated(graph: Graph, made: Plan, profile: str) -> Planned:
    """A plan with its estimates; a machine without any history is probed, once."""
    to_do = made.to_do()
    runs = list(history.runs(graph.root, history.TAIL_BYTES)) if to_do else []
    estimator = Estimator(graph, made, runs, history.machine(), None)
    found = {item.step.name: estimator.of(item) for item in to_do}
    if any(estimate.source == MODEL for estimate in found.values()):
        from meetara_build.probe import probe_seconds

        estimator.probe_seconds = probe_seconds(graph.project / CACHE / "probe.json")
        found = {item.step.name: estimator.of(item) for item in to_do}
    prices = profile_prices(graph.project, profile)
    price = None if prices is None else prices.get(graph.machines[""])
    return Planned(graph, made, found, total(made, found, jobs_at_once(graph.project, profile), price), profile)


def show_plan(words: Sequence[str], profile: str, *, as_json: bool, out: Path | None) -> bool:
    """Print a plan, and keep it in a file if one is named; whether there is something to do."""
    graph = project_graph(profile)
    domains = wanted(graph, words)
    planned = estimated(graph, look(graph, domains), profile)
    proposed = _proposed(graph, domains)
    if as_json:
        shown = content(graph, planned.made, planned.estimates, planned.total, domains, profile)
        print_json({**shown, "proposals": proposed})
    else:
        print_proposals(graph, proposed)
        print_plan(graph, planned.made, planned.total, profile, domains)
    if out is not None:
        kept = content(graph, planned.made, planned.estimates, planned.total, domains, profile, whole=True)
        try:
            write_text(out, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written ({error.strerror}); name another file") from None
        if not as_json:
            written = show_line(out)
            print(
                f"Kept in {written}: `{quote_command('meetara-build', 'apply', out)}` does exactly this, or refuses if anything "
                "changes until then."
            )
    return bool(planned.made.to_do())


def _proposed(graph: Graph, domains: Sequence[str]) -> list[dict[str, Any]]:
    """What the agents proposed last for these domains and no one has answered."""
    chosen = set(domains or graph.domains)
    found = [one for one in kept(graph.root)["verdicts"] if one["status"] not in (TAKEN, REJECTED, "refused")]
    return [one for one in found if one["proposal"]["domain"] in chosen]


class Kept(NamedTuple):
    """A plan from a file that still holds."""

    domains: list[str]
    profile: str


def read_kept(path: Path) -> Kept:
    """A plan from its file, if nothing has changed since it was made.

    Raises:
        ConfigError: it is no plan, of another version, for another project, or something has changed since.
    """
    from meetara_build.plan.kept import check_kept

    no_plan = ConfigError(f"{path}: no plan kept by `meetara-build plan --out`; make one with it")
    try:
        kept = parse_json(read_file(path))
        if isinstance(kept, dict) and isinstance(kept.get("version"), int) and kept["version"] != VERSION:
            raise ConfigError(f"{path}: was made by another version of meetara-build; make a new plan")
        check_kept(kept)
    except OSError as error:
        again = quote_command("meetara-build", "plan", "--out", path)
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); make it with `{again}`") from None
    except ValueError:
        raise no_plan from None
    domains, profile = kept["domains"], kept["profile"]
    graph = project_graph(profile)
    if kept["project"] != str(graph.project):
        raise ConfigError(
            f"{path}: is a plan for {show_line(kept['project'])}; go there, or make one for {graph.project}"
        )
    now = content(graph, look(graph, wanted(graph, domains)), {}, None, domains, profile, whole=True)
    try:
        changed = stale_reasons(graph, kept, now)
    except (LookupError, TypeError, AttributeError):  # recipes that no plan has
        raise no_plan from None
    if changed:
        shown = "\n  ".join([*changed[:20], *([f"and {len(changed) - 20} more"] if len(changed) > 20 else [])])
        raise ConfigError(f"{path}: things have changed since this plan was made:\n  {shown}\nMake a new plan.")
    return Kept(domains, profile)
