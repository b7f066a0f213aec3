"""Search a domain's best settings among `tuning.space`.

The same command goes on where it stopped.
"""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meetara_build.cli.options import LOCAL, Domain, Json, Override, Profile
from meetara_build.cli.output import amount, err, out, print_json, progress, table
from meetara_build.config.overrides import split_words
from meetara_build.context.delivery import Delivery
from meetara_build.engine.build_lock import at_work
from meetara_build.engine.planning import look, project_graph, select_domains
from meetara_build.engine.profiles import profile_hardware
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.outside import show_short

if TYPE_CHECKING:
    from meetara_build.tuning.session import Found, Tuning
    from meetara_build.tuning.workers import Told

TUNER = "tuner"


def tune(
    domain: Domain,
    overrides: Override = None,
    trials: Annotated[
        int,
        typer.Option(min=1, help="How many settings to have tried in all, earlier ones counted."),
    ] = 30,
    workers: Annotated[
        int, typer.Option(min=1, help="How many processes try settings side by side.")
    ] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Begin no trial after so long.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Decide for the best, if it is better by more than noise."),
    ] = False,
    profile: Profile = LOCAL,
    as_json: Json = False,
) -> None:
    """Search, show what was found, and decide as `agents.policy` says.

    Raises:
        ConfigError: nothing can be searched, or policy never takes what tuning finds.
    """
    from meetara_build.cli.advice import PERSON, POLICY, shared_context
    from meetara_build.config.resolve import Configuration
    from meetara_build.rounds.policy import ACCEPT, NEVER, stance
    from meetara_build.tuning.plots import write_report
    from meetara_build.tuning.session import Tuning, make_space
    from meetara_build.tuning.workers import check_workers

    said = split_words([domain, *(overrides or [])])
    graph = project_graph(profile, said)
    select_domains(graph, said.domains)
    configuration = Configuration(graph.project, profile_hardware(graph.project, profile), said)
    policy = stance(configuration.build.agents.model_dump(), TUNER)
    if policy == NEVER and accept:
        raise ConfigError(
            "conf/build.yaml: agents.policy never takes what tuner finds; change it there, or "
            "leave --accept out"
        )
    check_workers(workers, graph.step("adapter", domain).recipe)
    make_space(
        graph, configuration, domain
    )  # what cannot be searched is refused before anything is built
    _build_inputs(graph, domain)
    ends = None if seconds is None else time.time() + seconds
    tuning = Tuning(graph, configuration, domain)
    with shared_context(graph) as shared:
        Delivery(graph.root, shared).once()
        found = _search(tuning, shared, trials, workers, ends, quiet=as_json)
    files = write_report(found.study, graph.root / "tuning" / domain)
    by = PERSON if accept else POLICY if policy == ACCEPT else None
    if not as_json:
        _print_found(found, domain, [str(path) for path in files])
        if by is None and found.proposals and policy != NEVER and out.is_terminal:
            by = PERSON if typer.confirm("Decide so?") else None
    taken = _decide(graph, found, by) if by and found.proposals else []
    if as_json:
        _print_json(found, taken, [str(path) for path in files])
    elif found.proposals:
        _print_decision(domain, taken, may_decide=policy != NEVER)


def _build_inputs(graph: Graph, domain: str) -> None:
    """Build the base and the records, where they are not."""
    from meetara_build.engine import stage_run

    given = graph.step("adapter", domain).inputs.values()
    needed = graph.above((one.stage, one.target) for one in given)
    to_do = {item.step.name for item in look(graph, [domain]).to_do()}
    missing = [step for step in needed if step.name in to_do]
    with at_work(graph.project, [step.name for step in missing]), progress() as bar:
        task = bar.add_task("", total=len(missing))
        for step in missing:
            bar.update(task, description=f"building {step.name}")
            stage_run.run(graph, step)
            bar.advance(task)


def _search(
    tuning: "Tuning", shared: Any, trials: int, workers: int, ends: float | None, *, quiet: bool
) -> "Found":
    from meetara_build.tuning.studies import list_finished
    from meetara_build.tuning.verdict import MORE_SEEDS

    with progress() as bar:
        task = bar.add_task(
            "loading", total=max(0, trials - len(list_finished(tuning.study))) + 2 * MORE_SEEDS
        )
        heard: list[Told] = []

        def listen(told: "Told") -> None:
            heard.append(told)
            best = min((one.loss for one in heard if one.loss is not None), default=None)
            shown = "" if best is None else f"lowest loss {best:.4f}"
            bar.update(task, advance=1, description=shown)
            if not quiet and not err.is_terminal:
                end = "stopped" if told.loss is None else f"loss {told.loss:.4f}"
                out.print(f"{told.what}: {end} after {told.steps} steps")

        return tuning.run(shared, trials, workers, ends, listen)


def _decide(graph: Graph, found: "Found", by: str) -> list[str]:
    """Write the decisions, and tell the shared context, so that they count in the tuner's
    record."""
    from meetara_build.agents.snapshot import Context
    from meetara_build.cli.advice import shared_context, take
    from meetara_build.rounds import asking
    from meetara_build.rounds.ranking import WINS, Verdict

    verdicts = [
        Verdict(
            asking.proposal_id(TUNER, one),
            TUNER,
            one,
            WINS,
            "measured by tuning",
            found.now[one.key],
        )
        for one in found.proposals
    ]
    with shared_context(graph) as shared:
        asking.announce(shared, asking.Advice(verdicts, [], {}, {}, {}, Context({})))
    return take(graph, verdicts, by)


def _print_found(found: "Found", domain: str, files: list[str]) -> None:
    from meetara_build.tuning.plots import importances
    from meetara_build.tuning.studies import list_finished

    for key in found.left_out:
        out.print(f"{key} is locked, or not among agents.may_change: not searched", style="dim")
    for start in found.starts:
        out.print(f"tried early: {start.evidence}", style="dim")
    shown = table("key", ">now", ">best found", ">importance")
    shares = importances(found.study)
    for key, value in found.settings.items():
        share = f"{shares[key]:.0%}" if key in shares else ""
        shown.add_row(key, show_short(found.now[key]), show_short(value), share)
    out.print(shown)
    out.print(
        f"{domain}: validation loss {found.current:.4f} now, {found.winner:.4f} in trial "
        f"{found.number} of {amount(len(list_finished(found.study)), 'trial')}, {found.steps} training "
        "steps"
    )
    if found.repeats is None or found.gain is None:
        out.print("The current configuration is the best found.")
    else:
        beyond = "beyond noise" if found.gain.beyond_noise else "within noise: nothing is decided"
        seeds = ", ".join(map(str, found.repeats.seeds[1:]))
        out.print(
            f"With seeds {seeds} it is {found.gain.share:+.2%} better, {found.gain.sure:.0%} sure: "
            f"{beyond}.",
        )
    out.print(f"See {', '.join(files)}", style="dim")


def _print_decision(domain: str, taken: list[str], *, may_decide: bool) -> None:
    if taken:
        out.print(
            f"Decided: {amount(len(taken), 'key')} in conf/overlay/{domain}.yaml; see "
            "`meetara-build plan`",
        )
    elif not may_decide:
        out.print("agents.policy in conf/build.yaml never takes what tuner finds.")
    else:
        out.print(f"To decide so: `meetara-build tune {domain} --accept`")


def _print_json(found: "Found", taken: list[str], files: list[str]) -> None:
    from meetara_build.tuning.plots import report

    print_json(
        {
            **report(found.study),
            "now": found.now,
            "loss": found.current,
            "best": found.settings,
            "best_loss": found.winner,
            "best_trial": found.number,
            "steps": found.steps,
            "left_out": found.left_out,
            "starts": [start._asdict() for start in found.starts],
            "repeats": found.repeats._asdict() if found.repeats else None,
            "gain": found.gain._asdict() if found.gain else None,
            "proposals": [asdict(one) for one in found.proposals],
            "taken": taken,
            "files": files,
        }
    )
