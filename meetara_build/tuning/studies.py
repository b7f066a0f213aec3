"""Where trials are kept: studies of Optuna, in the context's database; where that is behind a
server, in one below the root."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from meetara_build.context.places import FILE, is_served, url_of
from meetara_build.context.store import connect_args, open_store
from meetara_build.errors import ContextError
from meetara_build.outside import first_line
from meetara_build.store.manifest import digest_json
from meetara_build.tuning.space import Settings, Space, apply_settings

HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 10, 60
"""How often a trial says that it lives, and after how long a silence it is taken for dead and tried
again."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

SETTINGS, ROLE, STEPS = "settings", "role", "steps"
"""User attributes of a trial: what it tried, why (``CURRENT``, or the neighbour it is from),
training steps it took."""
CURRENT = "current"


def studies_url(root: Path, settings: Mapping[str, Any]) -> str:
    """Where the studies of a root are; ``settings`` is ``context:`` of build.yaml."""
    url = url_of(root, settings)
    return f"sqlite:///{root / FILE}" if is_served(url) else url


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The storage at a context's URL; its tables are made where there are none.

    Raises:
        ContextError: it cannot be reached or written, or was made by another Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    store = open_store(url)
    try:
        with store.making_tables():
            return optuna.storages.RDBStorage(
                store.engine.url.render_as_string(hide_password=False),
                engine_kwargs={
                    "connect_args": connect_args(store.engine.url),
                    "pool_pre_ping": True,
                },
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=DEAD_AFTER_SECONDS,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
    except RuntimeError as fault:
        raise ContextError(
            f"{store.shown}: {first_line(fault)}; install that Optuna, or name another context.url"
        ) from None
    finally:
        store.close()


def study_name(
    domain: str, recipe: Mapping[str, Any], inputs: Mapping[str, str], space: Space
) -> str:
    """A name that says what the losses of a study are comparable by: data, base, space, and all
    keys that are not searched."""
    fixed = apply_settings(recipe, dict.fromkeys(space.current))
    return f"{domain}-{digest_json([fixed, inputs, space.content()])[:12]}"


def open_study(storage: optuna.storages.RDBStorage, name: str, about: Mapping[str, Any]) -> Study:
    """A study, new or as it was left."""
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    for key, value in about.items():
        study.set_user_attr(key, value)
    return study


def list_finished(study: Study) -> list[FrozenTrial]:
    """Trials that ran to their end, or were stopped as poor."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def in_full(trial: FrozenTrial) -> bool:
    """Whether a trial ran to its end."""
    return trial.state == TrialState.COMPLETE


def find_tried(trials: Iterable[FrozenTrial], settings: Settings) -> FrozenTrial | None:
    """The trial that ran these settings to their end, if one has."""
    return next(
        (one for one in trials if in_full(one) and one.user_attrs.get(SETTINGS) == settings), None
    )


def best(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the lowest loss of those that ran to their end."""
    done = [trial for trial in trials if in_full(trial) and trial.value is not None]
    return min(done, key=lambda trial: (trial.value, trial.number), default=None)


def steps_taken(trials: Iterable[FrozenTrial]) -> int:
    """Training steps of all of them: what a search has cost."""
    return sum(trial.user_attrs.get(STEPS, 0) for trial in trials)
