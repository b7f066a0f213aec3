"""tune, as a person runs it."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import processes, run_there, start, until
from projects import copy_built, edit, override, read_yaml

from meetara_build.cli.tune import tune
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.tuning.studies import (
    FINISHED,
    list_finished,
    open_storage,
    open_study,
    studies_url,
)

SHORT = {"training.max_steps": 30, "training.validations_per_epoch": 12, "training.patience": 10}
POOR = 3e-5
"""A learning rate that anything betters."""
TRIALS = 5


def study_of(project: Path, name: str) -> Any:
    return open_study(open_storage(studies_url(project / "artifacts", {"url": None})), name, {})


def said(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **given: Any
) -> str:
    """What tune prints where all trials have been taken already."""
    monkeypatch.chdir(project)
    options = {
        "trials": TRIALS,
        "workers": 1,
        "seconds": None,
        "accept": False,
        "as_json": False,
        **given,
    }
    tune("nutrition", **options)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def tuned(
    built_project: Path, tmp_path_factory: pytest.TempPathFactory, command: Any
) -> tuple[Path, dict[str, Any]]:
    """A project with a domain that was tuned by as many workers as there are cores, its dataset
    missing at first."""
    project = copy_built(built_project, tmp_path_factory.mktemp("tuned") / "project")
    override(project, "nutrition", {**SHORT, "training.learning_rate": POOR})
    shutil.rmtree(project / "artifacts" / "nutrition" / "dataset")
    workers = str(min(2, os.cpu_count() or 1))
    done = command(
        project,
        "tune",
        "nutrition",
        "--trials",
        str(TRIALS),
        "--workers",
        workers,
        "--json",
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return project, json.loads(done.stdout)


@pytest.fixture
def again(tuned: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """The tuned project, to change."""
    return Path(shutil.copytree(tuned[0], tmp_path / "project", symlinks=True))


def test_it_builds_what_it_needs_and_tries_as_many_settings_as_were_asked_for(
    tuned: tuple[Path, dict[str, Any]],
) -> None:
    project, found = tuned
    assert (project / "artifacts" / "nutrition" / "dataset" / "manifest.json").exists()
    assert len(found["trials"]) == TRIALS
    assert found["now"]["training.learning_rate"] == POOR
    assert [trial["from"] for trial in found["trials"]].count("current") == 1
    assert found["steps"] > sum(
        trial["steps"] for trial in found["trials"]
    )  # and what the repeats took


def test_the_best_build_of_a_similar_domain_was_tried(tuned: tuple[Path, dict[str, Any]]) -> None:
    _, found = tuned
    assert found["starts"]
    tried = [trial["settings"] for trial in found["trials"]]
    assert all(start["settings"] in tried for start in found["starts"])
    assert found["starts"][0]["settings"]["training.learning_rate"] == 2e-3


def test_the_winner_is_repeated_with_two_further_seeds_and_proposed(
    tuned: tuple[Path, dict[str, Any]],
) -> None:
    _, found = tuned
    assert found["best_loss"] < found["loss"]
    assert found["repeats"]["seeds"] == [17, 18, 19]
    assert found["repeats"]["current"][0] == found["loss"]
    assert found["gain"]["share"] > 0.01
    assert found["gain"]["sure"] > 0.95
    changed = {key: value for key, value in found["best"].items() if value != found["now"][key]}
    assert {one["key"]: one["value"] for one in found["proposals"]} == changed
    assert found["taken"] == []  # agents.policy asks, and nobody is there


def test_the_search_is_drawn(tuned: tuple[Path, dict[str, Any]]) -> None:
    project, found = tuned
    folder = project / "artifacts" / "tuning" / "nutrition"
    assert {"study.json", "history.svg"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "study.json").read_text())["trials"] == found["trials"]


def test_without_leave_it_says_how_to_decide(
    again: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(again, capsys, monkeypatch)
    assert "To decide so: `meetara-build tune nutrition --accept`" in text
    assert "beyond noise" in text
    assert "again" not in text, "what was repeated is kept"
    assert not (again / "conf" / "overlay" / "nutrition.yaml").exists()


def test_accept_makes_it_decisions_with_their_evidence_and_the_plan_knows(
    again: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(again, capsys, monkeypatch, accept=True)
    assert "in conf/overlay/nutrition.yaml; see `meetara-build plan`" in text
    decisions = read_yaml(again / "conf" / "overlay" / "nutrition.yaml")["decisions"]
    assert {one["agent"] for one in decisions} == {"tuner"}
    rate = next(one for one in decisions if one["key"] == "training.learning_rate")
    assert rate["value"] > POOR
    assert rate["evidence"][0].startswith("study nutrition-")
    assert "seeds 17, 18, 19" in rate["evidence"][-1]
    assert (
        load(again).step("adapter", "nutrition").recipe["training"]["learning_rate"]
        == rate["value"]
    )
    then = said(again, capsys, monkeypatch)
    assert "The current configuration is the best found." in then


def test_policy_may_accept_at_once(
    again: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(again / "conf" / "build.yaml", "agents.policy.tuner", "accept")
    assert "Decided: " in said(again, capsys, monkeypatch)
    assert (again / "conf" / "overlay" / "nutrition.yaml").exists()


def test_policy_may_refuse(
    again: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(again / "conf" / "build.yaml", "agents.policy.tuner", "never")
    assert "agents.policy in conf/build.yaml never takes" in said(again, capsys, monkeypatch)
    with pytest.raises(ConfigError, match="never takes what tuner finds"):
        said(again, capsys, monkeypatch, accept=True)


def test_ctrl_c_keeps_what_is_done(built_project: Path, tmp_path: Path, warm_folder: Path) -> None:
    project = copy_built(built_project, tmp_path / "project")
    override(project, "nutrition", SHORT)
    process = start(project, "tune", "nutrition", "--trials", "500", TMPDIR=str(warm_folder))
    assert process.stdout is not None
    until(lambda: process.stdout.readline().startswith("trial "), 300)  # type: ignore[union-attr]
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "what is finished is kept, and the same command goes on from there" in errors
    until(lambda: not processes(project, "spawn_main"), 30)
    name = next(
        iter(open_storage(studies_url(project / "artifacts", {"url": None})).get_all_studies())
    ).study_name
    left = study_of(project, name)
    assert list_finished(left)
    assert all(
        trial.state.is_finished() or trial.state.name == "WAITING" for trial in left.get_trials()
    )
    assert {trial.state for trial in list_finished(left)} <= set(FINISHED)


# What cannot be searched is refused before anything is built


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tuning.space": {"data.max_tokens": {"low": 100, "high": 200}}},
            "'data.max_tokens' is no key that tuning can try",
        ),
        ({"locked": ["training", "lora"]}, "every key is locked for nutrition"),
        ({"agents.may_change": ["gguf"]}, "not among agents.may_change"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    for key, value in changes.items():
        edit(project / "conf" / "build.yaml", key, value)
    monkeypatch.chdir(project)
    with pytest.raises(ConfigError, match=message):
        tune("nutrition", trials=1, workers=1, seconds=None, accept=False, as_json=True)


def test_more_workers_than_cores_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(
        ConfigError, match=r"--workers 999: with 1 threads each they need 999 cores"
    ):
        tune("nutrition", trials=1, workers=999, seconds=None, accept=False, as_json=True)


def test_an_unknown_domain_is_named(project: Path, command: Any) -> None:
    done = command(project, "tune", "nutritoin")
    assert done.returncode == 1
    assert "unknown domain 'nutritoin'" in done.stderr
    assert "nutrition" in done.stderr


def test_help_loads_neither_optuna_nor_torch() -> None:
    words = "import sys; sys.argv = ['meetara-build', 'tune', '--help']; from meetara_build.__main__ import main\n"
    words += "try: main()\nexcept SystemExit: print(sorted({'torch', 'optuna', 'matplotlib'} & set(sys.modules)))"
    assert run_there(Path.cwd(), sys.executable, "-c", words).stdout.endswith("[]\n")


def test_what_the_command_line_sets_holds_for_what_is_tuned(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(graph: Any, domain: str) -> None:
        raise Stopped(graph.step("adapter", domain).recipe["training"]["epochs"])

    monkeypatch.chdir(project)
    monkeypatch.setattr("meetara_build.cli.tune._build_inputs", stop)
    with pytest.raises(Stopped, match="9"):
        tune("nutrition", ["training.epochs=9"], trials=1)
    with pytest.raises(ConfigError, match=r"unknown key 'training\.epoch'"):
        tune("nutrition", ["training.epoch=9"], trials=1)
