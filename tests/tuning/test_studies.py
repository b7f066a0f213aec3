"""Where trials are kept."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from made_up import RANGES, RECIPE, small_space
from optuna.trial import TrialState

from meetara_build.context.local import Local
from meetara_build.context.store import Retention
from meetara_build.errors import ContextError
from meetara_build.tuning.space import applied, read_space
from meetara_build.tuning.studies import (
    SETTINGS,
    WORKER,
    best,
    finished,
    open_storage,
    open_study,
    steps_taken,
    studies_url,
    study_name,
    tried,
    worker,
)

INPUTS = {"base": "b" * 64, "dataset": "d" * 64}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return studies_url(tmp_path, {"url": None})


def take(study: optuna.Study, loss: float, steps: int = 10) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(SETTINGS, {"x": loss})
    trial.set_user_attr("steps", steps)
    study.tell(trial, loss)


def test_studies_are_beside_a_context_that_is_a_file(tmp_path: Path) -> None:
    assert studies_url(tmp_path, {"url": None}) == f"sqlite:///{tmp_path}/studies.db"
    assert (
        studies_url(tmp_path, {"url": f"sqlite:///{tmp_path}/else/where.db"})
        == f"sqlite:///{tmp_path}/else/studies.db"
    )


def test_behind_a_server_they_are_below_the_root(tmp_path: Path) -> None:
    assert (
        studies_url(tmp_path, {"url": "http://there:8000/mcp"})
        == f"sqlite:///{tmp_path}/studies.db"
    )


def test_other_databases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="use a file of SQLite, or PostgreSQL"):
        studies_url(tmp_path, {"url": "mysql://me:secret@there/all"})


def test_context_and_studies_share_a_folder_and_neither_minds_the_other(
    tmp_path: Path, url: str
) -> None:
    take(open_study(open_storage(url), "one", {}), 5.0)
    Local(f"sqlite:///{tmp_path}/context.db", Retention()).close()
    assert len(open_study(open_storage(url), "one", {}).trials) == 1


def test_in_postgresql_they_share_a_database_and_each_has_its_tables(
    postgres: str, tmp_path: Path
) -> None:
    own = studies_url(tmp_path, {"url": postgres})
    context = Local(postgres, Retention())
    take(open_study(open_storage(own), "one", {"domain": "nutrition"}), 5.0)
    assert context.position() == 0
    context.close()
    Local(postgres, Retention()).close()  # and neither takes the other's version for its own
    storage = open_storage(own)
    study = open_study(storage, "one", {})
    assert [trial.value for trial in study.trials] == [5.0]
    assert "trials" in sa.inspect(storage.engine).get_table_names(schema="optuna")
    assert "trials" not in sa.inspect(storage.engine).get_table_names(schema="public")
    storage.engine.dispose()


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContextError, match="no studies can be kept there"):
        open_storage(f"sqlite:///{tmp_path}/file/studies.db")
    (tmp_path / "studies.db").write_text(
        "this is no database at all, and long enough to be seen as none" * 20
    )
    with pytest.raises(ContextError, match=r"studies.db: no studies can be kept there"):
        open_storage(f"sqlite:///{tmp_path}/studies.db")


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ContextError) as caught:
        open_storage(studies_url(tmp_path, {"url": "postgresql://me:secret@127.0.0.1:1/none"}))
    assert "secret" not in str(caught.value)


# A study is of one kind of loss


def test_a_change_of_data_base_space_or_of_a_key_that_is_not_searched_begins_a_new_study() -> None:
    space = small_space()
    name = study_name("nutrition", RECIPE, INPUTS, space)
    narrower = read_space({"lora.rank": RANGES["lora.rank"]}, RECIPE, "x")
    others = {
        study_name("nutrition", RECIPE, {**INPUTS, "dataset": "e" * 64}, space),
        study_name("nutrition", RECIPE, {**INPUTS, "base": "e" * 64}, space),
        study_name("nutrition", RECIPE, INPUTS, narrower),
        study_name("nutrition", {**RECIPE, "seed": 18}, INPUTS, space),
        study_name("nutrition", applied(RECIPE, {"training.epochs": 4}), INPUTS, space),
    }
    assert name.startswith("nutrition-")
    assert name not in others
    assert len(others) == 5


def test_another_value_of_a_key_that_is_searched_goes_on_with_the_same_study() -> None:
    changed = applied(RECIPE, {"lora.rank": 8, "training.learning_rate": 1e-3})
    assert study_name("nutrition", changed, INPUTS, read_space(RANGES, changed, "x")) == study_name(
        "nutrition", RECIPE, INPUTS, small_space()
    )


# Trials of the dead


def test_a_trial_whose_process_was_killed_is_failed_and_others_are_left_alone(url: str) -> None:
    study = open_study(open_storage(url), "one", {})
    mine = study.ask()
    mine.set_user_attr(WORKER, worker())
    code = (
        "import os, signal, sys\n"
        "from meetara_build.tuning.studies import *\n"
        "trial = open_study(open_storage(sys.argv[1]), 'one', {}).ask()\n"
        "trial.set_user_attr(WORKER, worker())\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "RUNNING"]
    again = open_study(open_storage(url), "one", {})
    assert [trial.state.name for trial in again.get_trials()] == ["RUNNING", "FAIL"]


def test_a_trial_of_another_machine_is_left_to_its_heartbeat(url: str) -> None:
    study = open_study(open_storage(url), "one", {})
    trial = study.ask()
    trial.set_user_attr(WORKER, ["elsewhere", 1, 0.0])
    assert open_study(open_storage(url), "one", {}).get_trials()[0].state == TrialState.RUNNING


def _take_some(url: str, place: int) -> None:
    study = open_study(open_storage(url), "one", {})
    for number in range(5):
        take(study, place + number / 10)


def test_several_processes_write_one_study(url: str) -> None:
    open_study(open_storage(url), "one", {})
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.starmap(_take_some, [(url, place) for place in range(3)])
    study = open_study(open_storage(url), "one", {})
    assert sorted(trial.value for trial in finished(study)) == sorted(
        place + number / 10 for place in range(3) for number in range(5)
    )


def test_the_best_the_current_and_the_cost_are_read_from_trials(url: str) -> None:
    study = open_study(open_storage(url), "one", {"domain": "nutrition"})
    for loss in (5.0, 4.0, 4.5):
        take(study, loss, steps=7)
    study.tell(study.ask(), state=TrialState.FAIL)
    top: Any = best(study.trials)
    assert top.value == 4.0
    assert steps_taken(study.trials) == 21
    assert tried(study.trials, {"x": 4.5}) == study.trials[2]
    assert tried(study.trials, {"x": 9.0}) is None
    assert best([]) is None
    assert study.user_attrs["domain"] == "nutrition"


def test_the_living_are_told_from_the_dead_by_more_than_a_number() -> None:
    _, process, began = worker()
    assert process == os.getpid()
    assert began > 0
