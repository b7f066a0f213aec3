"""How a search went, and which keys matter: two plots, and the same as JSON."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from meetara_build.store.manifest import write_text
from meetara_build.tuning.studies import ROLE, SETTINGS, STEPS, in_full, list_finished

ENOUGH = 4
"""Trials that ran to their end, before it can be said which keys matter."""


def importances(study: Study) -> dict[str, float]:
    """The share of the loss's differences that each key explains (PED-ANOVA, arXiv 2304.10255);
    nothing of too few trials."""
    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(done) < ENOUGH or len({trial.value for trial in done}) < 2:
        return {}
    return {
        key: round(share, 4)
        for key, share in optuna.importance.get_param_importances(study).items()
    }


def report(study: Study) -> dict[str, Any]:
    """A study as JSON values."""
    return {
        "study": study.study_name,
        "about": study.user_attrs,
        "importances": importances(study),
        "trials": [
            {
                "number": trial.number,
                "outcome": "finished" if in_full(trial) else "stopped",
                "loss": trial.value if in_full(trial) else None,
                "losses": list(trial.intermediate_values.values()),
                "steps": trial.user_attrs.get(STEPS, 0),
                "from": trial.user_attrs.get(ROLE),
                "settings": trial.user_attrs.get(SETTINGS),
            }
            for trial in list_finished(study)
        ],
    }


def write_report(study: Study, folder: Path) -> list[Path]:
    """Write ``study.json``, ``history.svg`` and, of enough trials, ``importance.svg``; returns what
    is written.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = report(study)
    write_text(folder / "study.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    written = [folder / "study.json"]
    plots: dict[str, Callable[..., Any]] = {
        "history.svg": optuna.visualization.matplotlib.plot_optimization_history
    }
    if content["importances"]:
        plots["importance.svg"] = optuna.visualization.matplotlib.plot_param_importances
    for name, plot in plots.items():
        _draw(plot, study, folder / name)
        written.append(folder / name)
    return written


def _draw(plot: Callable[..., Any], study: Study, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": study.study_name}):
        warnings.simplefilter("ignore")
        figure = plot(study, target_name="validation loss").figure
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        matplotlib.pyplot.close(figure)
