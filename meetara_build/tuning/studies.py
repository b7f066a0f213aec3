"""Where trials are kept: studies of Optuna, in the context's database or, where that is SQLite, in a file beside it.

Optuna migrates its tables with alembic, as the context does, and both call the table of their version the same; so Optuna
gets a file of its own, or a schema of its own in PostgreSQL.
"""

import contextlib
import fcntl
import logging
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy as sa
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from meetara_build.context.places import is_served, url_of
from meetara_build.errors import ContextError
from meetara_build.outside import first_line
from meetara_build.store.manifest import digest_json
from meetara_build.tuning.space import Settings, Space, applied

FILE = "studies.db"
SCHEMA = "optuna"
BUSY_SECONDS = 60
HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 20, 90
"""How often a trial on another machine says that it lives, and when it is taken for dead."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

SETTINGS, ROLE, STEPS, STOPPED, WORKER = "settings", "role", "steps", "stopped", "worker"
"""User attributes of a trial: what it tried, why (``CURRENT``, or the neighbour it is from), training steps it took, whether it was
stopped as poor, and who."""
CURRENT = "current"


def studies_url(root: Path, settings: Mapping[str, Any]) -> str:
    """Where the studies of a root are; ``settings`` is ``context:`` of build.yaml. A server's are below the root."""
    url = url_of(root, settings)
    if is_served(url):
        return f"sqlite:///{root / FILE}"
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return f"sqlite:///{Path(parsed.database).with_name(FILE)}"
    if parsed.get_backend_name() == "postgresql":
        own = parsed.set(drivername="postgresql+psycopg").update_query_dict(
            {"options": f"-csearch_path={SCHEMA}"}
        )
        return own.render_as_string(hide_password=False)
    raise ContextError(
        f"context.url: {parsed.render_as_string()}: use a file of SQLite, or PostgreSQL"
    )


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The storage at an URL of ``studies_url``; its tables are made where there are none.

    Raises:
        ContextError: it cannot be reached or written, or was made by another Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    parsed = sa.make_url(url)
    shown = (
        parsed.database
        if parsed.get_backend_name() == "sqlite"
        else parsed.render_as_string(hide_password=True)
    )
    sqlite = parsed.get_backend_name() == "sqlite"
    try:
        with _prepared(parsed):
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={
                    "connect_args": {"timeout": BUSY_SECONDS}
                    if sqlite
                    else {"connect_timeout": 10},
                    "pool_pre_ping": True,
                },
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=DEAD_AFTER_SECONDS,
            )
            if sqlite:
                _share(storage.engine)
            return storage
    except (sa.exc.SQLAlchemyError, OSError) as fault:
        raise ContextError(
            f"{shown}: no studies can be kept there ({first_line(fault)}); mend that, or name another context.url"
        ) from None
    except RuntimeError as fault:
        raise ContextError(
            f"{shown}: {first_line(fault)}; install that Optuna, or move the file away"
        ) from None


def _share(engine: sa.Engine) -> None:
    """Let several processes read while one writes, as the context's own file does."""

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()  # connections made before do not know it


@contextlib.contextmanager
def _prepared(url: sa.URL) -> Iterator[None]:
    """One process at a time makes tables; in PostgreSQL, in a schema that is there."""
    if url.get_backend_name() == "sqlite":
        assert url.database
        path = Path(url.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    engine = sa.create_engine(
        url, connect_args={"connect_timeout": 10}, isolation_level="AUTOCOMMIT"
    )
    try:
        with engine.connect() as connection:
            connection.execute(
                sa.text("SELECT pg_advisory_lock(hashtext('meetara-build studies'))")
            )
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            yield
    finally:
        engine.dispose()


def study_name(
    domain: str, recipe: Mapping[str, Any], inputs: Mapping[str, str], space: Space
) -> str:
    """A name that says what the losses of a study are comparable by: data, base, space, and all keys that are not searched."""
    fixed = applied(recipe, dict.fromkeys(space.current))
    return f"{domain}-{digest_json([fixed, inputs, space.content()])[:12]}"


def open_study(storage: optuna.storages.RDBStorage, name: str, about: Mapping[str, Any]) -> Study:
    """A study, new or as it was left; trials whose process is dead are failed, so that they are tried again."""
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    for key, value in about.items():
        study.set_user_attr(key, value)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if _is_dead(trial.user_attrs.get(WORKER)):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    optuna.storages.fail_stale_trials(study)
    return study


def worker() -> list[Any]:
    """Who takes a trial, so that others can tell whether it lives: machine, process, and when that began."""
    return [socket.gethostname(), os.getpid(), psutil.Process().create_time()]


def _is_dead(who: Any) -> bool:
    """Whether a process of this machine is gone; of others, the heartbeat tells."""
    if who is None or who[0] != socket.gethostname():
        return False
    try:
        return bool(psutil.Process(who[1]).create_time() != who[2])
    except psutil.NoSuchProcess:
        return True


def finished(study: Study) -> list[FrozenTrial]:
    """Trials that ran to their end, or were stopped as poor."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def in_full(trial: FrozenTrial) -> bool:
    """Whether a trial ran to its end."""
    return trial.state == TrialState.COMPLETE and STOPPED not in trial.user_attrs


def tried(trials: Iterable[FrozenTrial], settings: Settings) -> FrozenTrial | None:
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
