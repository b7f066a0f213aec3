"""Settings that did well elsewhere, to be tried first: hyperparameters carry over between similar
data (Feurer, Springenberg and Hutter 2015: warm starts of a search from the best of the most
similar data sets)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage

from meetara_build.agents.snapshot import Run
from meetara_build.toolbox.paired_runs import loss
from meetara_build.tuning.space import Settings, Space, read_settings
from meetara_build.tuning.studies import SETTINGS, best

NEIGHBOURS = 3


class Start(NamedTuple):
    """Settings to try, and why: what they did on another domain."""

    settings: Settings
    domain: str
    evidence: str


def starts(
    space: Space,
    studied: Mapping[str, Start],
    runs: Mapping[str, Sequence[Run]],
    similar: Iterable[str],
) -> list[Start]:
    """The best settings of these domains, the most similar first, from their studies or else from
    their builds.

    What the space does not hold, and what is configured already or named twice, is left out.
    """
    found: list[Start] = []
    for domain in similar:
        start = studied.get(domain) or best_run(space, domain, runs.get(domain, ()))
        if start is None or not space.holds(start.settings):
            continue
        if start.settings not in [space.current, *(other.settings for other in found)]:
            found.append(start)
    return found


def best_run(space: Space, domain: str, runs: Sequence[Run]) -> Start | None:
    """The settings of a domain's best adapter, of those made from the same data as its last one."""
    last = next((run for run in reversed(runs) if run.outcome == "built"), None)
    if last is None:
        return None
    same = [
        run
        for run in runs
        if run.outcome == "built" and run.inputs == last.inputs and loss(run) is not None
    ]
    top = min(same, key=lambda run: loss(run) or 0.0, default=None)
    settings = read_settings(top.recipe, list(space.current)) if top else None
    if top is None or settings is None:
        return None
    return Start(settings, domain, f"{domain}, run {top.id}: validation loss {loss(top):.4f}")


def collect_starts(storage: BaseStorage, base: str) -> dict[str, Start]:
    """By domain, the best settings of the newest study on this base that has any."""
    found: dict[str, Start] = {}
    summaries = optuna.get_all_study_summaries(storage)
    for summary in sorted(summaries, key=lambda one: one.datetime_start or datetime.min):
        about = summary.user_attrs
        if about.get("base") != base or summary.best_trial is None:
            continue
        top = best(
            optuna.load_study(study_name=summary.study_name, storage=storage).get_trials(
                deepcopy=False
            )
        )
        if top is not None and SETTINGS in top.user_attrs:
            evidence = (
                f"{about['domain']}, study {summary.study_name}, trial {top.number}: validation "
                f"loss {top.value:.4f}"
            )
            found[about["domain"]] = Start(top.user_attrs[SETTINGS], about["domain"], evidence)
    return found
