"""The plan of the project that a command is run in, with its estimates; and a plan read back from a
file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from meetara_build.config.overrides import NO_OVERRIDES, Overrides
from meetara_build.engine.profiles import jobs_at_once, profile_hardware, profile_prices
from meetara_build.errors import ConfigError, nearest
from meetara_build.graph import Graph, load
from meetara_build.graph.stages import ABOVE_BUNDLES
from meetara_build.outside import parse_json, quote_command, read_file, show_line
from meetara_build.plan import Plan, plan
from meetara_build.plan.content import VERSION, content, stale_reasons
from meetara_build.plan.estimate import MODEL, Estimate, Estimator, Total, total
from meetara_build.plan.inventory import Sight
from meetara_build.project import CACHE, find_project
from meetara_build.store import journal


class Planned(NamedTuple):
    """A plan and what it will take."""

    graph: Graph
    made: Plan
    estimates: dict[str, Estimate]
    total: Total
    profile: str


def project_graph(profile: str = "local", overrides: Overrides = NO_OVERRIDES) -> Graph:
    """The graph of the project we are in, for the machine that a profile names, with what the
    command line sets."""
    project = find_project()
    return load(project, profile_hardware(project, profile), overrides)


def select_domains(graph: Graph, words: Sequence[str]) -> list[str]:
    """Domains named on the command line.

    Raises:
        ConfigError: there is no such domain, or build.yaml leaves it out.
    """
    for word in words:
        if word in graph.domains:
            continue
        if (graph.project / "conf" / "domain" / f"{word}.yaml").exists():
            raise ConfigError(
                f"{graph.project / 'conf' / 'build.yaml'}: domains: does not name '{word}'; add it "
                "there"
            )
        raise ConfigError(f"unknown domain '{word}'{nearest(word, graph.domains)}")
    return list(dict.fromkeys(words))


def select_targets(graph: Graph, words: Sequence[str]) -> list[str]:
    """Domains, and bundles as ``bundle/NAME``, named on the command line.

    Raises:
        ConfigError: there is no such domain or bundle, or it cannot be built as it is.
    """
    bundles = [word for word in words if word.startswith(ABOVE_BUNDLES)]
    for word in bundles:
        if word in graph.refused:
            raise ConfigError(graph.refused[word])
        if word not in graph.bundles:
            known = [*graph.bundles, *graph.refused]
            raise ConfigError(f"unknown bundle '{show_line(word)}'{nearest(word, known)}")
    if bundles and graph.overrides.words:
        raise ConfigError(
            f"command line: '{graph.overrides.words[0]}' is for domains, and a bundle holds them as "
            f"they are; set it in conf/, or name the domains of {bundles[0]}"
        )
    select_domains(graph, [word for word in words if word not in bundles])
    return list(dict.fromkeys(words))


def look(graph: Graph, targets: Sequence[str] = (), *, bundles: bool = False) -> Plan:
    """The plan for these domains and bundles, or for all domains, and with ``bundles`` for every
    bundle; what was read for it is remembered for the next."""
    sight = Sight(graph)
    made = plan(graph, targets, sight, bundles=bundles)
    sight.save()
    return made


def add_estimates(graph: Graph, made: Plan, profile: str) -> Planned:
    """A plan with its estimates; a machine without any history is probed, once."""
    to_do = made.to_do()
    runs = list(journal.runs(graph.root, journal.TAIL_BYTES)) if to_do else []
    estimator = Estimator(graph, made, runs, journal.machine(), None)
    found = {item.step.name: estimator.of(item) for item in to_do}
    if any(estimate.source == MODEL for estimate in found.values()):
        from meetara_build.engine.probe import probe_seconds

        estimator.probe_seconds = probe_seconds(graph.project / CACHE / "probe.json")
        found = {item.step.name: estimator.of(item) for item in to_do}
    prices = profile_prices(graph.project, profile)
    price = None if prices is None else prices.get(graph.machines[""])
    return Planned(
        graph, made, found, total(made, found, jobs_at_once(graph.project, profile), price), profile
    )


class Kept(NamedTuple):
    """A plan from a file that still holds."""

    overrides: Overrides
    profile: str


def read_kept(path: Path) -> Kept:
    """A plan from its file, if nothing has changed since it was made.

    Raises:
        ConfigError: it is no plan, of another version, for another project, or something has
            changed since.
    """
    from meetara_build.plan.kept import check_kept

    no_plan = ConfigError(f"{path}: no plan kept by `meetara-build plan --out`; make one with it")
    try:
        kept = parse_json(read_file(path))
        if (
            isinstance(kept, dict)
            and isinstance(kept.get("version"), int)
            and kept["version"] != VERSION
        ):
            raise ConfigError(
                f"{path}: was made by another version of meetara-build; make a new plan"
            )
        check_kept(kept)
    except OSError as error:
        again = quote_command("meetara-build", "plan", "--out", path)
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); make it with `{again}`"
        ) from None
    except ValueError:
        raise no_plan from None
    domains, profile = kept["domains"], kept["profile"]
    overrides = Overrides(tuple(kept["overrides"]), tuple(domains))
    graph = project_graph(profile, overrides)
    if kept["project"] != str(graph.project):
        raise ConfigError(
            f"{path}: is a plan for {show_line(kept['project'])}; go there, or make one for "
            f"{graph.project}"
        )
    now = content(
        graph, look(graph, select_targets(graph, domains)), {}, None, domains, profile, whole=True
    )
    try:
        changed = stale_reasons(graph, kept, now)
    except (LookupError, TypeError, AttributeError):  # recipes that no plan has
        raise no_plan from None
    if changed:
        shown = "\n  ".join(
            [*changed[:20], *([f"and {len(changed) - 20} more"] if len(changed) > 20 else [])]
        )
        raise ConfigError(
            f"{path}: things have changed since this plan was made:\n  {shown}\nMake a new plan."
        )
    return Kept(overrides, profile)
