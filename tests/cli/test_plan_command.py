"""plan and apply: a kept plan is done, exactly, or refused with what has changed since."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from commands import outcomes
from fast_stages import Edit, added, build
from projects import edit, override

from meetara_build.cli.plan import plan
from meetara_build.config.overrides import split_words
from meetara_build.engine.planning import Kept, read_kept
from meetara_build.errors import ConfigError


def changed(project: Path) -> None:
    """One step to do: the package of nutrition."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.001)


def refused(done: Any) -> str:
    """What a command that failed says, in one piece and without a traceback."""
    assert done.returncode == 1
    assert done.stderr.startswith("meetara-build: ")
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


# Done


def test_a_kept_plan_is_done_and_then_is_stale(project: Path, command: Any) -> None:
    changed(project)
    done = command(project, "plan", "--out", "kept.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(
        "Kept in kept.json: `meetara-build apply kept.json`"
    )
    done = command(project, "apply", "kept.json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^nutrition/package built in \d+\.\d s$", done.stdout, re.MULTILINE)
    assert ("package", "nutrition", "built") in outcomes(project)[-2:]
    assert command(project, "plan", "--detailed-exitcode").returncode == 0
    said = refused(command(project, "apply", "kept.json"))
    assert "nutrition/package: was RUN, is FRESH now" in said


def test_a_plan_with_nothing_to_do_is_applied_in_no_time(project: Path, command: Any) -> None:
    assert command(project, "plan", "--out", "kept.json").returncode == 0
    done = command(project, "apply", "kept.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == []


def test_a_plan_keeps_its_domains_and_its_profile(
    fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast)
    for words, profile in (
        ([], "local"),
        (["nutrition"], "local"),
        (["music", "nutrition"], "lambda"),
        (["training.epochs=4"], "local"),
        (["music", "+evaluation.max_kl.Q3_K_M=0.4", "hardware=big"], "local"),
    ):
        plan(words, profile, as_json=True, out=Path("kept.json"))
        assert read_kept(Path("kept.json")) == Kept(split_words(words), profile)


SAID = """domain.description='a {x}: "b", it\\'s $HOME'"""
"""A value with what YAML, a shell and Snakemake read as their own."""


def test_a_build_with_overrides_does_what_its_plan_said_and_no_plan_without_them_does(
    project: Path, command: Any
) -> None:
    """The words reach Snakemake and every job, whatever is in them."""
    words = ["nutrition", SAID, "evaluation.max_kl.Q8_0=0.9"]
    planned = json.loads(command(project, "plan", *words, "--json").stdout)
    assert planned["overrides"] == words[1:]
    (item,) = planned["items"]
    assert (item["step"], item["action"]) == ("nutrition/package", "RUN")
    causes = {cause["key"]: (cause["where"], cause["new"]) for cause in item["causes"]}
    assert causes == {
        "domain.description": ("command line", 'a {x}: "b", it\'s $HOME'),
        "evaluation.max_kl.Q8_0": ("command line", 0.9),
    }
    assert command(project, "plan", *words, "--out", "kept.json").returncode == 0
    done = command(project, "apply", "kept.json", "--json")
    assert done.returncode == 0, done.stderr
    runs = [
        (run["stage"], run["target"], run["outcome"]) for run in json.loads(done.stdout)["runs"]
    ]
    assert runs == [("package", "nutrition", "built")]
    card = (project / "artifacts" / "nutrition" / "package" / "README.md").read_text()
    assert 'a {x}: "b", it\'s $HOME' in card
    assert command(project, "plan", *words, "--detailed-exitcode").returncode == 0
    back = json.loads(command(project, "plan", "nutrition", "--json").stdout)
    assert [(item["step"], item["action"]) for item in back["items"]] == [
        ("nutrition/package", "RESTORE")
    ]
    assert {cause["where"] for cause in back["items"][0]["causes"]} == {
        "conf/domain/nutrition.yaml",
        "conf/build.yaml",
    }
    done = command(project, "build", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert [run["outcome"] for run in json.loads(done.stdout)["runs"]] == []


def test_an_override_is_a_cause_like_any_other(
    fast: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fast)
    plan(["nutrition", "training.epochs=4", "lora.rank=8"], "local", as_json=False)
    said = capsys.readouterr().out
    assert "command line training.epochs: 2 → 4" in said
    assert "command line lora.rank: 16 → 8" in said
    plan(["hardware=big"], "local", as_json=False)
    assert "command line hardware.threads: 1 → 2" in capsys.readouterr().out
    plan(["music", "base=mini"], "local", as_json=False)
    assert "command line base: other → mini" in capsys.readouterr().out


def test_a_word_that_is_no_domain_and_no_override_is_refused(
    fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast)
    with pytest.raises(
        ConfigError, match=r"unknown domain 'nutritoin'; did you mean 'nutrition'\?"
    ):
        plan(["nutritoin", "training.epochs=4"], "local", as_json=False)


def test_what_a_plan_has_nothing_to_do_with_may_change(
    fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fast)
    changed(fast)
    plan(["nutrition"], "local", as_json=True, out=Path("kept.json"))
    override(fast, "music", {"lora.rank": 8})
    (fast / "conf" / "domain" / "nutrition.yaml").touch()
    edit(fast / "conf" / "domain" / "nutrition.yaml", "topics", ["another"])
    assert read_kept(Path("kept.json")).overrides.domains == ("nutrition",)


# Refused


@pytest.fixture
def kept(fast: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan with one step to do, kept in the project's folder, in which we are."""
    monkeypatch.chdir(fast)
    changed(fast)
    plan([], "local", as_json=True, out=Path("kept.json"))
    return fast / "kept.json"


def refusal() -> str:
    """Why the kept plan is not applied."""
    with pytest.raises(ConfigError) as fault:
        read_kept(Path("kept.json"))
    return str(fault.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda project: override(project, "music", {"lora.rank": 8}),
            "conf/domain/music.yaml lora.rank: 16 → 8 (music/adapter)",
        ),
        (
            lambda project: edit(
                project / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", 0.002
            ),
            "conf/domain/nutrition.yaml evaluation.beat_base_by: 0.001 → 0.002 (nutrition/package)",
        ),
        (
            added("storytelling", "train"),
            "conf/domain/storytelling.jsonl: its content changed (storytelling/dataset)",
        ),
        (
            lambda project: (project / "artifacts/music/evaluation/evaluation.json").unlink(),
            "music/evaluate: was FRESH, is RESTORE now",
        ),
        (build, "nutrition/package: was RUN, is FRESH now"),
    ],
    ids=[
        "an override",
        "the key that was planned for",
        "a source",
        "a deleted artifact",
        "a build",
    ],
)
def test_what_has_changed_since_is_said(kept: Path, change: Edit, said: str) -> None:
    change(kept.parent)
    first, *lines, last = refusal().splitlines()
    assert first == "kept.json: things have changed since this plan was made:"
    assert f"  {said}" in lines
    assert last == "Make a new plan."


def test_an_apply_that_is_refused_does_nothing(kept: Path, command: Any) -> None:
    override(kept.parent, "music", {"lora.rank": 8})
    before = outcomes(kept.parent)
    lines = refused(command(kept.parent, "apply", "kept.json")).splitlines()
    assert lines[0] == "meetara-build: kept.json: things have changed since this plan was made:"
    assert lines[1] == "  conf/domain/music.yaml lora.rank: 16 → 8 (music/adapter)"
    assert lines[-1].strip() == "Make a new plan. [config]"
    assert outcomes(kept.parent) == before


def test_training_that_someone_built_in_between_is_said(kept: Path) -> None:
    override(kept.parent, "music", {"lora.rank": 8})
    plan([], "local", as_json=True, out=kept)
    build(kept.parent)
    assert "  music/adapter: was RUN, is FRESH now\n" in refusal()


def test_of_many_changes_the_first_are_said_and_the_others_counted(kept: Path) -> None:
    reasons = [f"change {number}" for number in range(25)]
    with mock.patch("meetara_build.engine.planning.stale_reasons", return_value=reasons):
        lines = refusal().splitlines()
    assert lines[1:21] == [f"  change {number}" for number in range(20)]
    assert lines[21:] == ["  and 5 more", "Make a new plan."]


def test_a_change_that_reaches_many_steps_is_one_line(kept: Path) -> None:
    edit(kept.parent / "conf" / "hardware" / "cpu.yaml", "threads", 2)
    edit(kept.parent / "conf" / "build.yaml", "data.test", 0.3)
    assert refusal().splitlines()[1:-1] == [
        "  conf/build.yaml data.test: 0.2 → 0.3 (base/mini/corpus and 4 more)",
        "  conf/hardware/cpu.yaml threads: 1 → 2 (base/mini/gguf and 22 more)",
    ]


def rewritten(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def without(path: Path, field: str) -> None:
    path.write_text(
        json.dumps(
            {key: value for key, value in json.loads(path.read_text()).items() if key != field}
        )
    )


def made_from(path: Path, **parts: Any) -> dict[str, Any]:
    """What a kept plan is made from, with other parts for one of its steps."""
    before: dict[str, Any] = json.loads(path.read_text())["made_from"]
    return {**before, "nutrition/gguf": {**before["nutrition/gguf"], **parts}}


NO_PLAN = "kept.json: no plan kept by `meetara-build plan --out`; make one with it"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda path: path.unlink(),
            "kept.json: cannot be read (No such file or directory); make it with `meetara-build plan --out",
        ),
        (lambda path: path.write_text(""), NO_PLAN),
        (lambda path: path.write_text(path.read_text()[:-40]), NO_PLAN),
        (lambda path: path.write_bytes(b"\xff\xfe"), NO_PLAN),
        (lambda path: path.write_text("[]"), NO_PLAN),
        (lambda path: path.write_text('"plan"'), NO_PLAN),
        (lambda path: without(path, "made_from"), NO_PLAN),
        (lambda path: without(path, "items"), NO_PLAN),
        (lambda path: rewritten(path, profile=["local"]), NO_PLAN),
        (lambda path: rewritten(path, profile=None), NO_PLAN),
        (lambda path: rewritten(path, domains=None), NO_PLAN),
        (lambda path: rewritten(path, domains="nutrition"), NO_PLAN),
        (lambda path: rewritten(path, domains=[["nutrition"]]), NO_PLAN),
        (lambda path: rewritten(path, items=["x"]), NO_PLAN),
        (lambda path: rewritten(path, items=[{"step": "x", "action": 3, "key": ""}]), NO_PLAN),
        (lambda path: rewritten(path, made_from={"nutrition/package": "x"}), NO_PLAN),
        (lambda path: rewritten(path, made_from=made_from(path, recipe=[])), NO_PLAN),
        (
            lambda path: rewritten(
                path, made_from=made_from(path, recipe={"imatrix": 3, "quants": 5, "max_kl": "x"})
            ),
            NO_PLAN,
        ),
        (lambda path: rewritten(path, project=None), NO_PLAN),
        (lambda path: path.write_text("[" * 100_000), NO_PLAN),
        (
            lambda path: (path.unlink(), os.mkfifo(path)),
            "kept.json: cannot be read (no regular file); make it with",
        ),
        (
            lambda path: rewritten(path, version=1),
            "kept.json: was made by another version of meetara-build; make a new plan",
        ),
        (
            lambda path: rewritten(path, project="/elsewhere"),
            "kept.json: is a plan for /elsewhere; go there, or make one for ",
        ),
        (lambda path: rewritten(path, profile="gone"), "unknown profile 'gone'"),
        (lambda path: rewritten(path, domains=["gone"]), "unknown domain 'gone'"),
    ],
    ids=[
        "missing",
        "empty",
        "cut short",
        "no text",
        "a list",
        "a word",
        "printed, not kept",
        "without steps",
        "a list of profiles",
        "no profile",
        "no domains",
        "a word for domains",
        "lists for domains",
        "words for steps",
        "a number for an action",
        "words for what it is made from",
        "a list for a recipe",
        "a recipe that is none",
        "no project",
        "brackets without end",
        "a pipe",
        "another version",
        "another project",
        "an unknown profile",
        "an unknown domain",
    ],
)
def test_what_is_no_plan_for_here_is_refused(kept: Path, spoil: Any, said: str) -> None:
    spoil(kept)
    assert said in refusal()


def test_a_file_that_is_no_plan_is_one_line_and_exit_status_1(fast: Path, command: Any) -> None:
    assert NO_PLAN.replace("kept.json", "conf/build.yaml") in refused(
        command(fast, "apply", "conf/build.yaml")
    )


def test_a_place_where_no_plan_can_be_written_is_named_and_left_as_it_is(kept: Path) -> None:
    before = sorted(path.name for path in kept.parent.iterdir())
    with pytest.raises(
        ConfigError, match=r"^conf: cannot be written \(Is a directory\); name another file$"
    ):
        plan([], "local", as_json=True, out=Path("conf"))
    assert sorted(path.name for path in kept.parent.iterdir()) == before


def test_the_command_that_applies_a_plan_is_printed_as_a_shell_takes_it(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept.parent / "My plans").mkdir()
    plan([], "local", as_json=False, out=Path("My plans/it's {x}.json"))
    said = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(re.search("`(.*)`", said)[1])  # type: ignore[index]
    assert words == ["meetara-build", "apply", "My plans/it's {x}.json"]


# Exit statuses


def test_the_exit_status_says_whether_there_is_something_to_do_only_if_asked(
    fast: Path, command: Any
) -> None:
    assert command(fast, "plan", "--detailed-exitcode").returncode == 0
    changed(fast)
    assert command(fast, "plan").returncode == 0
    for words in (
        ["--detailed-exitcode"],
        ["--detailed-exitcode", "--json"],
        ["--detailed-exitcode", "--out", "kept.json"],
    ):
        assert command(fast, "plan", *words).returncode == 2
    assert command(fast, "plan", "music", "--detailed-exitcode").returncode == 0
    assert command(fast, "plan", "musik", "--detailed-exitcode").returncode == 1


def test_only_apply_without_a_file_is_a_wrong_command_line(fast: Path, command: Any) -> None:
    assert command(fast, "apply").returncode == 64
    assert command(fast, "apply", "gone.json").returncode == 1
