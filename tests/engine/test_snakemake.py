"""Snakemake: its targets, and that it runs what the plan says."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import (
    Jobs,
    damage,
    jobs,
    models,
    outcomes,
    processes,
    run_there,
    snakemake,
    start,
    state,
    until,
)
from projects import copy_built, date_all, edit, override, small_project

from meetara_build.config.overrides import split_words
from meetara_build.engine import snakemake as engine
from meetara_build.engine.profiles import profile_hardware
from meetara_build.errors import BuildError
from meetara_build.graph import load
from meetara_build.plan import FRESH, MAYBE, RESTORE, RUN, plan
from meetara_build.store import journal

NUTRITION = {
    (stage, "nutrition")
    for stage in ("dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package")
}
BASE = {(stage, "base/mini") for stage in ("corpus", "base", "gguf", "imatrix")}


@pytest.fixture
def made(snakemade: Path, tmp_path: Path) -> Path:
    """A project of the test's own that Snakemake built."""
    return copy_built(snakemade, tmp_path / "project")


def planned(project: Path) -> Jobs:
    """What the plan says will run, or may."""
    return {
        (item.step.stage, item.step.target)
        for item in plan(load(project)).items
        if item.action != FRESH
    }


def built_by_us(project: Path) -> Jobs:
    """What Snakemake would run if `meetara-build build` called it."""
    graph = load(project)
    return jobs(run_there(project, *engine.command(graph, plan(graph), "local", ["--dry-run"])))


def test_a_build_by_snakemake_alone_is_the_build(snakemade: Path, built_project: Path) -> None:
    assert models(snakemade) == models(built_project)
    assert planned(snakemade) == set()
    assert not list(snakemade.glob("artifacts/*/merged"))
    assert (snakemade / "artifacts" / "logs" / "nutrition" / "adapter.log").exists()


def test_nothing_is_done_where_nothing_has_changed(snakemade: Path) -> None:
    before = state(snakemade / "artifacts")
    done = snakemake(snakemade, "all_domains")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stderr
    assert state(snakemade / "artifacts") == before


def test_a_dry_run_writes_nothing(made: Path) -> None:
    override(made, "nutrition", {"training.learning_rate": 1e-3})
    before = state(made / "artifacts")
    assert jobs(snakemake(made, "all_domains", "-n"))
    assert state(made / "artifacts") == before


def test_a_domain_s_name_is_a_target(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project")
    assert jobs(snakemake(project, "nutrition", "-n")) == NUTRITION | BASE
    assert planned(project) == jobs(snakemake(project, "all_domains", "-n"))


def test_one_file_is_a_target(made: Path, warm_folder: Path) -> None:
    model = made / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf"
    content = model.read_bytes()
    model.unlink()
    done = snakemake(made, "artifacts/nutrition/gguf/nutrition-Q8_0.gguf", TMPDIR=str(warm_folder))
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() == content
    assert [run[:2] for run in outcomes(made)[-2:]] == [
        ("merge", "nutrition"),
        ("gguf", "nutrition"),
    ]


def test_a_project_and_a_root_with_any_names_are_built(
    built_project: Path, tmp_path: Path, command: Any
) -> None:
    """A mounted drive is called My Drive; quotes, braces and dollars are names too."""
    project = copy_built(built_project, tmp_path / "it's $HOME {domain}")
    edit(project / "conf" / "build.yaml", "store", "artifacts/store")
    edit(project / "conf" / "build.yaml", "root", "My Drive/it's {domain} $HOME")
    before = sorted(path.name for path in project.iterdir())
    done = command(project, "build", "nutrition")
    assert done.returncode == 0, done.stderr
    root = project / "My Drive" / "it's {domain} $HOME"
    assert (root / "nutrition" / "package" / "manifest.json").exists()
    assert (root / "logs" / "nutrition" / "package.log").exists()
    assert sorted({*before, "My Drive", ".snakemake"}) == sorted(
        path.name for path in project.iterdir()
    )
    assert command(project, "plan", "nutrition", "--detailed-exitcode").returncode == 0


def test_an_unknown_target_is_refused(snakemade: Path) -> None:
    done = snakemake(snakemade, "nutritoin", "-n")
    assert done.returncode == 1
    assert "nutritoin" in done.stdout + done.stderr


def one_learning_rate(project: Path) -> None:
    """Change one stage's recipe for one domain."""
    override(project, "nutrition", {"training.learning_rate": 1e-3})


def one_record_more(project: Path) -> None:
    """Add to the data that the base and one domain are made from."""
    with (project / "conf" / "domain" / "nutrition.jsonl").open("a", encoding="utf-8") as file:
        record = {
            "prompt": "How long do boiled eggs keep?",
            "response": "About a week in the fridge, in their shells.",
        }
        file.write(json.dumps({**record, "topic": "food safety"}) + "\n")


def one_bound(project: Path) -> None:
    """Change what one domain has to reach."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.001)


def files_touched(project: Path) -> None:
    """Change times and nothing else."""
    for path in (
        "conf/build.yaml",
        "conf/domain/nutrition.jsonl",
        "artifacts/nutrition/dataset/train.jsonl",
    ):
        os.utime(project / path)
    os.utime(project / "artifacts" / "nutrition" / "dataset" / "manifest.json")


def other_kinds(project: Path) -> None:
    """Another set of GGUF files."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "quants", ["F16", "Q8_0"])


def merged_kept(project: Path) -> None:
    """Keep what was temporary."""
    edit(project / "conf" / "build.yaml", "keep_merged", True)


def one_domain_less(project: Path) -> None:
    """Leave a domain out of the build."""
    edit(project / "conf" / "build.yaml", "domains", ["nutrition", "programming"])


def a_file_damaged(project: Path) -> None:
    """Other bytes, the same size, the old time."""
    path = project / "artifacts" / "nutrition" / "adapter" / "adapter_model.safetensors"
    before = path.stat()
    damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def a_file_and_its_manifest_deleted(project: Path) -> None:
    """Nothing that Snakemake is asked for is gone."""
    for name in ("manifest.json", "train.jsonl"):
        (project / "artifacts" / "programming" / "dataset" / name).unlink()


def copied_over_with_old_times(project: Path) -> None:
    """A neighbour's model under our name, as `cp --preserve` leaves it."""
    folder = project / "artifacts"
    ours, theirs = (
        folder / name / "gguf" / f"{name}-Q8_0.gguf" for name in ("nutrition", "programming")
    )
    ours.unlink()
    shutil.copy2(theirs, ours)
    os.utime(ours, (1.0, 1.0))


def snakemake_s_records_deleted(project: Path) -> None:
    """What Snakemake knows is lost."""
    shutil.rmtree(project / ".snakemake")


def records_deleted_and_an_edit(project: Path) -> None:
    """What Snakemake knows is lost, and it has something to find."""
    snakemake_s_records_deleted(project)
    one_bound(project)


def after_merging(domain: str) -> Jobs:
    """What comes after a merge."""
    return {(stage, domain) for stage in ("gguf", "evaluate", "package")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            one_learning_rate,
            NUTRITION - {("dataset", "nutrition"), ("baseline", "nutrition")}
            | {("report", "report")},
        ),
        (one_record_more, None),
        (one_bound, {("package", "nutrition"), ("report", "report")}),
        (files_touched, set()),
        (other_kinds, {("merge", "nutrition"), *after_merging("nutrition"), ("report", "report")}),
        (merged_kept, None),
        (one_domain_less, {("report", "report")}),
        (a_file_damaged, {("adapter", "nutrition")}),
        (a_file_and_its_manifest_deleted, {("dataset", "programming")}),
        (copied_over_with_old_times, {("gguf", "nutrition"), ("merge", "nutrition")}),
        (snakemake_s_records_deleted, set()),
        (records_deleted_and_an_edit, {("package", "nutrition"), ("report", "report")}),
    ],
)
def test_snakemake_wants_what_the_plan_says(
    made: Path, change: Callable[[Path], None], expected: Jobs | None
) -> None:
    change(made)
    said = planned(made)
    assert jobs(snakemake(made, "all_domains", "-n")) == said
    assert built_by_us(made) == said
    assert expected is None or said == expected


def a_blank_line(project: Path) -> None:
    """A source that is another file, and gives the same records."""
    with (project / "conf" / "domain" / "storytelling.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")


def everything_from_the_future(project: Path) -> None:
    """The clock was set back, and someone has an edit to build."""
    date_all(project, 4e9)
    one_bound(project)


@pytest.mark.parametrize("how", ["build", "snakemake"])
@pytest.mark.parametrize(
    "change", [a_blank_line, a_file_damaged, one_bound, everything_from_the_future]
)
def test_what_runs_is_what_the_plan_said(
    made: Path, command: Any, warm_folder: Path, change: Callable[[Path], None], how: str
) -> None:
    change(made)
    items = plan(load(made)).to_do()
    run, maybe, restore = (
        {(item.step.stage, item.step.target) for item in items if item.action == action}
        for action in (RUN, MAYBE, RESTORE)
    )
    before = len(outcomes(made))
    done = (
        command(made, "build")
        if how == "build"
        else snakemake(made, "all_domains", TMPDIR=str(warm_folder))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = outcomes(made)[before:]
    built = {(stage, target) for stage, target, outcome in ran if outcome == "built"}
    assert run <= built <= run | maybe
    assert restore <= {(stage, target) for stage, target, outcome in ran if outcome == "restored"}
    assert {(stage, target) for stage, target, _ in ran} <= run | maybe | restore
    assert planned(made) == set()
    assert "Nothing to be done" in snakemake(made, "all_domains").stderr


def test_a_deleted_model_is_planned_and_brought_back_and_nothing_else_is_done(
    made: Path, command: Any
) -> None:
    model = made / "artifacts" / "nutrition" / "gguf" / "nutrition-Q4_K_M.gguf"
    content = model.read_bytes()
    model.unlink()
    said = {("merge", "nutrition"), ("gguf", "nutrition")}
    assert planned(made) == built_by_us(made) == said
    assert jobs(snakemake(made, "all_domains", "-n")) == said
    before = len(outcomes(made))
    assert command(made, "build").returncode == 0
    assert {run[:2] for run in outcomes(made)[before:]} == said
    assert model.read_bytes() == content


def test_what_snakemake_has_no_record_of_is_built_as_planned(project: Path) -> None:
    one_learning_rate(project)
    assert built_by_us(project) == planned(project) != set()


def test_few_domains_are_all_trained_before_the_first_is_merged(
    made: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(made / "conf" / "build.yaml", "seed", 5)
    done = command(made, "build", "--cores", "1")
    assert done.returncode == 0, done.stderr
    latest = list(journal.runs(made / "artifacts"))[-30:]
    ended = [
        run.stage for run in latest if run.outcome == "built" and run.stage in ("adapter", "merge")
    ]
    assert ended == ["adapter"] * 3 + ["merge"] * 3
    monkeypatch.setattr(engine, "FEW", 2)
    edit(made / "conf" / "build.yaml", "seed", 6)
    graph = load(made)
    assert "--prioritize" not in engine.command(graph, plan(graph), "local"), (
        "of many, the first is wanted soon"
    )


def test_domains_with_a_higher_priority_are_built_first(made: Path, warm_folder: Path) -> None:
    for domain, priority in {"nutrition": 0, "programming": 1, "storytelling": 2}.items():
        override(made, domain, {"training.max_steps": 1, "priority": priority})
    before = len(outcomes(made))
    done = snakemake(made, "all_domains", "--cores", "1", TMPDIR=str(warm_folder))
    assert done.returncode == 0, done.stderr
    order = [target for _, target, _ in outcomes(made)[before:] if target != "report"]
    assert list(dict.fromkeys(order)) == ["storytelling", "programming", "nutrition"]
    assert order == sorted(order, reverse=True), "all of one domain before the next begins"


@pytest.mark.parametrize("profile", ["lambda", "runpod", "colab", "slurm", "kubernetes"])
def test_a_profile_chooses_its_machine(snakemade: Path, profile: str) -> None:
    if profile in ("slurm", "kubernetes") and not importlib.util.find_spec(
        f"snakemake_executor_plugin_{profile}"
    ):
        pytest.skip(f"the executor plugin for {profile} is not installed")
    machine = profile_hardware(snakemade, profile)
    done = snakemake(snakemade, "nutrition", "-n", "-p", profile=profile)
    assert ("adapter", "nutrition") in jobs(done)
    assert re.search(rf"stage .*--hardware {machine} .*adapter nutrition", done.stdout)
    adapter = done.stdout.partition("rule adapter:")[2].partition("\nrule ")[0]
    assert "gpu=1" in adapter


def test_overrides_are_handed_on_beside_what_the_profile_configures(built_project: Path) -> None:
    """Snakemake's --config takes the place of a profile's whole."""
    said = split_words(["nutrition", "training.epochs=4"])
    graph = load(built_project, profile_hardware(built_project, "lambda"), said)
    words = engine.command(graph, plan(graph, ["nutrition"]), "lambda")
    given = words[words.index("--config") + 1 :]
    assert {"hardware=a10", "provider=lambda", f"overrides={said.as_text()}"} <= set(given)
    graph = load(built_project)
    assert "--config" not in engine.command(graph, plan(graph), "lambda")


@pytest.fixture
def endless_snakemake(made: Path) -> Any:
    """A Snakemake at work in the project's folder, for as long as the test likes."""
    (made / "endless.smk").write_text(
        "rule endless:\n    output: 'endless'\n    shell: 'sleep 600'\n"
    )
    words = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        "endless.smk",
        "--cores",
        "1",
        "endless",
    ]
    with subprocess.Popen(
        words, cwd=made, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    ) as running:
        assert running.stdout
        assert any(b"rule endless" in line for line in running.stdout)
        yield running
        os.killpg(running.pid, 9)


def test_a_build_leaves_a_running_snakemake_alone(
    made: Path, endless_snakemake: Any, command: Any
) -> None:
    one_bound(made)
    done = command(made, "build")
    assert done.returncode == 1
    assert re.search(
        rf"Snakemake is running here \(\w+, process {endless_snakemake.pid}\); wait for it",
        done.stderr,
    )
    assert endless_snakemake.poll() is None


def test_locks_of_a_killed_snakemake_are_cleared(made: Path, command: Any) -> None:
    (made / ".snakemake" / "locks").mkdir(exist_ok=True)
    (made / ".snakemake" / "locks" / "0.output.lock").write_text(
        "artifacts/nutrition/package/manifest.json\n"
    )
    one_bound(made)
    done = command(made, "build")
    assert done.returncode == 0, done.stderr


def test_a_failed_job_s_own_words_are_the_message(made: Path, command: Any) -> None:
    override(made, "nutrition", {"lora.targets": ["no_such_layer"]})
    one = command(made, "build")
    assert one.returncode == 1
    assert "nutrition/adapter: " in one.stderr
    assert (
        "1 job failed; what is finished is kept, and a new build goes on from there" in one.stderr
    )
    assert "Traceback" not in one.stderr
    assert len(one.stderr.strip().splitlines()) < 8


def test_a_refused_job_s_words_begin_as_ours_do_once(made: Path) -> None:
    (made / "artifacts" / "logs" / "nutrition").mkdir(parents=True, exist_ok=True)
    log = made / "artifacts" / "logs" / "nutrition" / "package.log"
    log.write_text("meetara-build: nutrition/package: it is damaged\n")
    failed = next(journal.runs(made / "artifacts"))._replace(
        stage="package", target="nutrition", error=""
    )
    said = engine._failure(load(made), made / "artifacts" / "logs" / "snakemake.log", [failed])
    assert said.splitlines()[0] == "nutrition/package: it is damaged"


def test_a_job_that_ended_before_its_run_began_has_the_word_too(made: Path) -> None:
    """Where the code was changed during the build, no run is recorded."""
    logs = made / "artifacts" / "logs"
    (logs / "nutrition").mkdir(parents=True, exist_ok=True)
    (logs / "nutrition" / "evaluate.log").write_text(
        "meetara-build: nutrition/evaluate: the code changed during the build; build again [config]\n"
    )
    log = logs / "snakemake.log"
    log.write_text(
        "Error in rule evaluate:\n    message: None\n    jobid: 3\n    log: "
        "artifacts/logs/nutrition/evaluate.log (check log file(s) for error details)\n"
    )
    said = engine._failure(load(made), log, [])
    assert said.splitlines() == [
        "nutrition/evaluate: the code changed during the build; build again [config]",
        "1 job failed; what is finished is kept, and a new build goes on from there",
    ]


def test_a_build_ends_soon_after_it_is_told_to(made: Path, warm_folder: Path, command: Any) -> None:
    """SIGINT to the one process, as a CI system sends it: Snakemake does not hear of it."""
    override(made, "nutrition", {"training.epochs": 2000, "training.patience": 2000})
    build = start(made, "build", TMPDIR=str(warm_folder))
    until(lambda: processes(made, " stage ", "adapter nutrition"))
    build.send_signal(2)
    said = build.communicate(timeout=15)[1]
    assert build.returncode == 130
    assert "stopped; what is finished is kept" in said
    until(lambda: not processes(made), 5)
    one_bound(made)
    override(made, "nutrition", {"training.epochs": 2, "training.patience": 3})
    done = command(made, "build")
    assert done.returncode == 0, done.stderr


def test_a_build_error_without_a_failed_job_shows_snakemake_s_words(project: Path) -> None:
    (project / "Snakefile").write_text("this is no Snakefile\n")
    one_bound(project)
    graph = load(project)
    with pytest.raises(
        BuildError, match=r"Snakemake stopped:\n(.|\n)*The whole log is .*snakemake-.*log"
    ):
        engine.build(graph, plan(graph), "local", lambda run: None)
