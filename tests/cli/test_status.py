"""status: what each domain's state is, why, and all of them on one screen."""

import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fast_stages import REASON, build
from projects import copy_built, edit, override

from meetara_build.cli.init import init
from meetara_build.cli.output import Screen
from meetara_build.cli.status import is_running, status
from meetara_build.graph import load
from meetara_build.store import journal

States = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> States:
    """``states(project)``: state and note of each domain, as programs are told."""

    def found(project: Path, *domains: str) -> dict[str, dict[str, str]]:
        monkeypatch.chdir(project)
        capsys.readouterr()
        status(list(domains), "local", as_json=True)
        entries: dict[str, dict[str, str]] = json.loads(capsys.readouterr().out)
        return entries

    return found


@contextmanager
def made(project: Path, reference: str) -> Iterator[None]:
    """As while a process makes this step's artifact: it holds the step's lock."""
    path = project / "artifacts" / ".locks" / reference
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def failed(project: Path, stage: str, domain: str, error: str | None) -> None:
    """As after a run that failed."""
    step = load(project).step(stage, domain)
    run = journal.Run(
        stage, domain, step.fingerprint, "failed", 0.0, 1.0, 1.0, 1.0, 1.0, 0, "here", error
    )
    journal.record(project / "artifacts", run)


# States


def test_after_a_build_every_domain_is_fresh(built: Path, states: States) -> None:
    fresh = {"state": "fresh", "note": ""}
    assert states(built) == dict.fromkeys(
        ("music", "nutrition", "programming", "storytelling"), fresh
    )


def test_a_domain_is_running_while_a_process_holds_the_lock_of_a_step(
    project: Path, states: States
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    with made(project, "nutrition-adapter"):
        assert is_running(project / "artifacts", "nutrition-adapter")
        found = states(project)
        assert found["nutrition"] == {"state": "running", "note": "adapter"}
        assert found["music"]["state"] == "fresh"
    assert not is_running(project / "artifacts", "nutrition-adapter")
    assert states(project)["nutrition"]["state"] == "stale"


def test_all_steps_of_a_domain_that_are_being_made_are_named(project: Path, states: States) -> None:
    with made(project, "nutrition-evaluate"), made(project, "nutrition-package"):
        assert states(project, "nutrition") == {
            "nutrition": {"state": "running", "note": "evaluate, package"}
        }


def test_looking_hinders_no_one_who_wants_the_lock(project: Path, states: States) -> None:
    with made(project, "nutrition-adapter"):
        pass
    states(project)
    with (project / "artifacts" / ".locks" / "nutrition-adapter").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_stale_domain_says_which_step_and_why(project: Path, states: States) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    (project / "artifacts" / "music" / "evaluation" / "evaluation.json").unlink()
    edit(project / "conf" / "domain" / "programming.yaml", "description", "Another")
    found = states(project)
    assert {domain: entry["state"] for domain, entry in found.items()} == {
        "music": "stale",
        "nutrition": "stale",
        "programming": "stale",
        "storytelling": "fresh",
    }
    assert found["nutrition"]["note"] == "adapter: conf/domain/nutrition.yaml lora.rank: 16 → 8"
    assert found["music"]["note"] == "evaluate: artifacts/music/evaluation/evaluation.json: missing"
    assert found["programming"]["note"].startswith(
        "package: conf/domain/programming.yaml description: "
    )


def test_a_failed_domain_says_the_first_line_of_its_error(project: Path, states: States) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    failed(project, "adapter", "nutrition", "the loss is no number\nand more of it")
    override(project, "music", {"lora.rank": 8})
    failed(project, "adapter", "music", None)
    found = states(project)
    assert found["nutrition"] == {"state": "failed", "note": "adapter: the loss is no number"}
    assert found["music"] == {"state": "failed", "note": "adapter: see its log"}


def test_a_failure_before_an_edit_is_no_failure_of_what_is_now(
    project: Path, states: States
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    failed(project, "adapter", "nutrition", "too wide")
    override(project, "nutrition", {"lora.rank": 4})
    assert states(project)["nutrition"]["state"] == "stale"


def test_a_failure_that_is_made_good_is_forgotten(project: Path, states: States) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    failed(project, "adapter", "nutrition", "the machine was stopped")
    build(project)
    assert states(project)["nutrition"]["state"] == "fresh"


def test_a_domain_whose_model_is_held_back_says_the_first_reason(
    held_back: Path, states: States
) -> None:
    found = states(held_back)
    assert found.pop("nutrition") == {"state": "held back", "note": f"{REASON} [gate-answers]"}
    assert {entry["state"] for entry in found.values()} == {"fresh"}


def test_after_an_edit_a_domain_that_was_held_back_is_stale(
    held_back: Path, states: States
) -> None:
    edit(held_back / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.1)
    assert states(held_back)["nutrition"]["state"] == "stale"


def test_a_package_that_is_gone_and_was_held_back_did_not_fail(
    held_back: Path, states: States
) -> None:
    shutil.rmtree(held_back / "artifacts" / "nutrition" / "package")
    assert states(held_back)["nutrition"]["state"] == "stale"


def test_what_a_model_said_is_shown_as_text(
    held_back: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = on_a_terminal(held_back, monkeypatch, 100)
    assert lines[-2:] == [
        f"nutrition {REASON} [gate-answers]",
        "Status: 3 fresh, 0 running, 0 stale, 0 failed, 1 held back, 0 not built",
    ]


def test_a_new_domain_is_not_built(project: Path, states: States) -> None:
    edit(project / "conf" / "build.yaml", "domains", ["music", "legal"])
    shutil.rmtree(project / "artifacts" / "music")
    assert states(project) == {
        "legal": {"state": "not built", "note": ""},
        "music": {"state": "not built", "note": ""},
    }


def test_an_unknown_domain_is_answered_with_the_nearest(built: Path, command: Any) -> None:
    done = command(built, "status", "musik")
    assert (done.returncode, done.stderr) == (
        1,
        "meetara-build: unknown domain 'musik'; did you mean 'music'? [config]\n",
    )


# How it looks


def test_elsewhere_than_on_a_terminal_each_domain_has_a_line(project: Path, command: Any) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    lines = command(project, "status").stdout.splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r"music +fresh", lines[0])
    assert re.fullmatch(
        r"nutrition +stale +adapter: conf/domain/nutrition\.yaml lora\.rank: 16 → 8", lines[1]
    )
    assert lines[-1] == "Status: 3 fresh, 0 running, 1 stale, 0 failed, 0 held back, 0 not built"


def on_a_terminal(
    project: Path, monkeypatch: pytest.MonkeyPatch, width: int, *domains: str
) -> list[str]:
    console = Screen(file=StringIO(), force_terminal=True, color_system=None, width=width)
    monkeypatch.chdir(project)
    monkeypatch.setattr("meetara_build.cli.status.out", console)
    status(domains, "local", as_json=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_terminal_shows_as_many_columns_as_fit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    note = "nutrition adapter: conf/domain/nutrition.yaml lora.rank: 16 → 8"
    total = "Status: 3 fresh, 0 running, 1 stale, 0 failed, 0 held back, 0 not built"
    assert on_a_terminal(project, monkeypatch, 40) == [
        "● music",
        "● nutrition stale",
        "● programming",
        "● storytelling",
        note,
        total,
    ]
    wide = on_a_terminal(project, monkeypatch, 70)
    assert [line.split() for line in wide[:2]] == [
        ["●", "music", "●", "programming"],
        ["●", "nutrition", "stale", "●", "storytelling"],
    ]
    assert wide[2:] == [note, total]


def test_all_shipped_domains_fit_on_one_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(tmp_path / "project")
    lines = on_a_terminal(tmp_path / "project", monkeypatch, 100)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert "\n".join(lines).count("●") == 62
    assert lines[-1] == "Status: 0 fresh, 0 running, 0 stale, 0 failed, 0 held back, 62 not built"
