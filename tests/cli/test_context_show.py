"""The context for people: it shows what real builds did, live, and can be moved to another
machine."""

import json
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from projects import copy_built, edit, override, small_project

from meetara_build.cli.context.show import show
from meetara_build.cli.output import Screen
from meetara_build.context.delivery import waiting_files
from meetara_build.context.outbox import Outbox, parcels
from meetara_build.context.reports import check_reports
from meetara_build.engine.stage_run import run
from meetara_build.graph import load


def shown(project: Path, command: Any, *words: str) -> Any:
    """What `context show WORDS --json` prints."""
    done = command(project, "context", "show", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_real_build_fills_the_sections(project: Path, command: Any) -> None:
    found = shown(project, command)
    assert list(found) == ["resource_status", "quality_metrics", "training_state", "knowledge_base"]
    jobs = {
        (job["domain"], job["stage"]): job
        for job in found["resource_status"]["memory_usage"]["jobs"]
    }
    assert jobs["nutrition", "adapter"]["memory_mb"] > 100
    assert found["resource_status"]["cost_tracking"]["by_domain"]["nutrition"]["runs"] >= 6
    quality = found["quality_metrics"]
    assert quality["validation_scores"]["nutrition"]["validation_loss_after"] > 0
    assert quality["data_quality"]["nutrition"]["kept"] > 10
    assert quality["model_performance"]["evaluated"]["nutrition"]["losses"]["F16"] > 0
    progress = {
        (row["domain"], row["stage"]): row for row in found["training_state"]["progress_metrics"]
    }
    assert progress["nutrition", "adapter"]["step"] == progress["nutrition", "adapter"]["steps"] > 1
    assert progress["base/mini", "base"]["loss"] > 0
    assert waiting_files(project / "artifacts") == 0


def test_every_report_that_a_real_build_made_is_of_its_shape(built_project: Path) -> None:
    made = [report for parcel in parcels(built_project / "artifacts") for report in parcel.reports]
    assert len(check_reports(made)) == len(made) > 30
    assert {report["kind"] for report in made} == {"run", "sample", "progress"}


def made(project: Path, stage: str) -> str:
    """Run a stage of nutrition in this process."""
    graph = load(project)
    return run(graph, graph.step(stage, "nutrition"), cold=True)


def test_a_failure_is_told_with_what_solved_it(project: Path, command: Any) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    edit(path, "evaluation.beat_base_by", 0.95)
    assert made(project, "package") == "held back"
    (error,) = shown(project, command, "knowledge_base", "--domain", "nutrition")["knowledge_base"][
        "error_solutions"
    ]
    assert (error["stage"], error["solution"]) == ("package", None)
    assert "nutrition" in error["message"]
    edit(path, "evaluation.beat_base_by", 0.001)
    assert made(project, "package") == "built"
    (error,) = shown(project, command, "knowledge_base")["knowledge_base"]["error_solutions"]
    assert error["solution"] == "beat_base_by: 0.95 → 0.001"


def test_a_changed_recipe_teaches_what_it_did(project: Path, command: Any) -> None:
    shown(project, command)
    override(project, "nutrition", {"training.learning_rate": 0.003})
    assert made(project, "adapter") == "built"
    (found,) = shown(project, command, "knowledge_base")["knowledge_base"][
        "optimization_strategies"
    ]
    assert found["change"] == "training.learning_rate: 0.002 → 0.003"
    assert found["tried"] == 1


def test_a_machine_with_a_price_has_its_cost_told(project: Path, command: Any) -> None:
    before = shown(project, command)["resource_status"]["cost_tracking"]["usd"]
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.001)
    graph = load(project)
    run(graph, graph.step("package", "nutrition"), cold=True, usd_per_hour=3600.0)
    assert before == 0
    assert 0 < shown(project, command)["resource_status"]["cost_tracking"]["usd"] < 60


def test_for_people_it_is_tables(project: Path, command: Any) -> None:
    said = command(project, "context", "show", COLUMNS="200").stdout
    for words in (
        "resource_status",
        "validation_scores",
        "nutrition",
        "knowledge_base",
        "error_solutions: nothing yet",
    ):
        assert words in said
    assert "{" not in said


def test_what_others_report_is_shown_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(small_project(tmp_path / "project"))
    message = "No such file: [/data/x.jsonl]\nPlan: 0 [bold]x[/]"
    box = Outbox(graph.root, domain="nutrition", sender="someone")
    box.put("error", stage="adapter", message=message)
    box.put("metrics", values={"[link=http://evil.example]loss[/link]": 1.0})
    box.close()
    screen = Screen(file=StringIO(), force_terminal=True, color_system=None, width=300)
    monkeypatch.setattr("meetara_build.cli.context.show.out", screen)
    monkeypatch.chdir(graph.project)
    show()
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "No such file: [/data/x.jsonl]\\nPlan: 0 [bold]x[/]",
        "[link=http://evil.example]loss[/link]",
    ):
        assert words in said
    assert "\x1b]8" not in said


def test_watching_shows_each_change(project: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "meetara_build",
        "context",
        "show",
        "training_state",
        "--watch",
        "--json",
    ]
    with subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        before = json.loads(watching.stdout.readline())["training_state"]["current_domain"]
        box = Outbox(
            project / "artifacts",
            domain="programming",
            stage="adapter",
            build="b",
            machine="m",
            hardware="cpu",
        )
        box.put(
            "sample",
            cpu_percent=1.0,
            memory_mb=1.0,
            available_mb=1.0,
            total_mb=1.0,
            time=time.time(),
        )
        after = json.loads(watching.stdout.readline())["training_state"]["current_domain"]
        watching.kill()
    box.close()
    assert [job["domain"] for job in before] == []
    assert [job["domain"] for job in after] == ["programming"]


def test_what_was_learnt_moves_to_another_machine(
    project: Path, tmp_path: Path, built_project: Path, command: Any
) -> None:
    there = copy_built(built_project, tmp_path / "there")
    for parcel in parcels(there / "artifacts"):
        parcel.path.unlink()
    said = command(project, "context", "export", "learnt.jsonl")
    assert "reports in learnt.jsonl; take them in elsewhere with" in said.stdout
    count = len((project / "learnt.jsonl").read_text().splitlines())
    words = ["context", "import", str(project / "learnt.jsonl")]
    assert command(there, *words).stdout == f"{count} of {count} reports were new\n"
    assert command(there, *words).stdout == f"0 of {count} reports were new\n"
    for name in ("quality_metrics", "knowledge_base"):
        assert shown(there, command, name) == shown(project, command, name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            None,
            "learnt.jsonl: cannot be read (No such file or directory); name what `meetara-build context export` wrote",
        ),
        ("{}\nno json\n", "learnt.jsonl:1: kind None is unknown"),
        ("no json\n", "learnt.jsonl:1: no report; name what `meetara-build context export` wrote"),
        (
            '{"kind": "run", "id": "a", "time": 1}\n',
            "learnt.jsonl:1: (run): domain: Field required",
        ),
    ],
)
def test_a_file_that_holds_no_reports_is_refused_whole(
    project: Path, command: Any, content: str | None, said: str
) -> None:
    if content is not None:
        (project / "learnt.jsonl").write_text(content)
    done = command(project, "context", "import", "learnt.jsonl")
    assert done.returncode == 1
    assert said in done.stderr.replace("report 1: ", "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["context", "show", "training_stat"],
            1,
            "unknown section 'training_stat'; did you mean 'training_state'?",
        ),
        (
            ["context", "show", "--domain", "nutritoin"],
            1,
            "unknown domain 'nutritoin'; did you mean 'nutrition'?",
        ),
        (["context", "token", "create", "two words"], 1, "use letters, digits"),
        (["context", "token", "revoke", "nobody"], 1, "there is no token 'nobody'"),
        (["context", "gossip"], 64, "No such command 'gossip'"),
        (["context", "export", "/proc/nowhere/file"], 1, "/proc/nowhere/file: cannot be written"),
    ],
)
def test_wrong_words_are_named(
    project: Path, command: Any, words: list[str], status: int, said: str
) -> None:
    done = command(project, *words)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_used_is_named_and_what_waits_goes_on_waiting(
    project: Path, command: Any
) -> None:
    (project / "artifacts" / "context.db").write_bytes(b"nothing of use " * 1000)
    waiting = waiting_files(project / "artifacts")
    done = command(project, "context", "show")
    assert done.returncode == 1
    assert "context.db: is no database of SQLite, or damaged; move it away" in done.stderr
    assert waiting_files(project / "artifacts") == waiting > 0
    (project / "artifacts" / "context.db").unlink()
    assert shown(project, command)["resource_status"]["cost_tracking"]["runs"] > 0


def test_the_url_in_the_configuration_is_used(project: Path, command: Any, tmp_path: Path) -> None:
    edit(project / "conf" / "build.yaml", "context.url", f"sqlite:///{tmp_path / 'other.db'}")
    shown(project, command)
    assert (tmp_path / "other.db").exists()
    edit(project / "conf" / "build.yaml", "context.url", "mysql://nowhere/x")
    assert (
        "context.url: mysql://nowhere/x: use a file of SQLite, or PostgreSQL"
        in command(project, "context", "show").stderr
    )
