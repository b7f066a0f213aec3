"""Shell completion, asked for as bash and zsh ask: quick, and silent where there is nothing to
offer."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import run_there
from projects import DOMAINS, small_project

from meetara_build.cli.app import COMMANDS
from meetara_build.cli.completion import complete_overrides, complete_proposals, complete_words
from meetara_build.rounds.inbox import keep

BIN = Path(sys.executable).parent
TOOL = str(BIN / "meetara-build")
HEAVY = "hydra mcp numpy omegaconf optuna pandas pydantic snakemake sqlalchemy torch transformers"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which nothing is built."""
    return small_project(tmp_path / "project")


def completed(folder: Path, *words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    done = run_there(
        folder,
        TOOL,
        COMP_WORDS="\n".join(("meetara-build", *words)),
        COMP_CWORD=str(len(words)),
        _MEETARA_BUILD_COMPLETE="complete_bash",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_commands_are_completed(tmp_path: Path) -> None:
    assert completed(tmp_path, "") == COMMANDS
    assert completed(tmp_path, "a") == ["add-domain", "apply", "agents", "accept"]
    assert completed(tmp_path, "data", "") == ["check"]
    assert completed(tmp_path, "context", "token", "") == ["create", "list", "revoke"]


def test_options_are_completed(tmp_path: Path) -> None:
    assert completed(tmp_path, "plan", "--") == [
        "--profile",
        "--detailed-exitcode",
        "--out",
        "--json",
        "--help",
    ]
    assert completed(tmp_path, "tune", "nutrition", "--tr") == ["--trials"]


@pytest.mark.parametrize(
    "words",
    [
        ["build"],
        ["plan", "nutrition"],
        ["status"],
        ["run"],
        ["propose"],
        ["tune"],
        ["chat"],
        ["compare", "nutrition"],
        ["explain"],
        ["verify"],
        ["data", "check"],
        ["context", "show", "--domain"],
    ],
)
def test_domains_of_the_project_around_are_completed(project: Path, words: list[str]) -> None:
    assert completed(project / "conf", *words, "pro") == ["programming"]


def test_profiles_are_completed(project: Path) -> None:
    for words in (["build"], ["verify", "--repair"], ["tune", "nutrition"]):
        assert completed(project, *words, "--profile", "lo") == ["local"]


def test_bases_are_completed_where_a_command_takes_one(project: Path) -> None:
    assert completed(project, "compare", "base:mi") == ["base:mini"]
    assert completed(project, "explain", "base/mi") == ["base/mini"]


def test_proposals_that_no_one_has_answered_are_completed(project: Path) -> None:
    states = {"1a2b": "wins", "1a3c": "outvoted", "1a4d": "taken", "$(x)": "wins"}
    verdicts = [{"id": id, "status": status} for id, status in states.items()]
    (project / "artifacts").mkdir()
    keep(project / "artifacts", {"verdicts": verdicts})
    for command in ("accept", "reject"):
        assert completed(project, command, "") == ["1a2b", "1a3c"]
        assert completed(project, command, "1a2b", "1a3") == ["1a3c"]


def test_outside_a_project_or_in_a_broken_one_there_is_nothing_and_nothing_is_said(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (["build", ""], ["build", "--profile", ""], ["accept", ""], ["gc", ""])
    for words in asked:
        assert completed(tmp_path, *words) == []
    (project / "conf" / "build.yaml").write_text("root: [")
    (project / "artifacts").mkdir()
    (project / "artifacts" / "proposals.json").write_text('{"verdicts": [{"id": 7}]}')
    for path in (project / "conf" / "profile", project / "conf" / "domain"):
        path.rename(path.with_name("away"))
        path.write_text("no folder")
        path.with_name("away").rename(project / path.name)
    for words in asked:
        assert completed(project, *words) == []
    (project / "conf" / "build.yaml").write_text("root: artifacts")
    monkeypatch.chdir(project)
    assert complete_proposals("") == []


def test_a_name_that_a_shell_would_not_take_for_a_word_is_left_out(project: Path) -> None:
    for name in ("a b", "$(touch gone)", "quote'"):
        (project / "conf" / "domain" / f"{name}.yaml").write_text("")
    assert completed(project, "build", "") == sorted(DOMAINS)


@pytest.mark.parametrize(
    ("before", "word", "offered"),
    [
        ([], "training.ep", ["training.epochs=3"]),
        (["nutrition"], "lora.ra", ["lora.rank=16"]),
        ([], "hard", ["hardware="]),
        (["hardware", "="], "a1", ["a10", "a100"]),
        (["hardware"], "a1", ["a10", "a100"]),
        ([], "hardware=a1", ["hardware=a10", "hardware=a100"]),
        ([], "domains", []),
    ],
)
def test_keys_are_completed_as_they_are_set_and_bases_and_machines_by_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, before: list[str], word: str, offered: list[str]
) -> None:
    monkeypatch.chdir(project)
    context: Any = SimpleNamespace(params={"words": before, "profile": "local"})
    assert complete_overrides(context, word) == offered
    assert complete_words(context, word) == offered
    assert complete_words(context, "nutr") == ([] if "hardware" in before else ["nutrition"])


def test_zsh_is_offered_the_same(project: Path) -> None:
    words = {
        "_MEETARA_BUILD_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "meetara-build build n",
    }
    done = run_there(project, TOOL, **words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "_arguments '*: :((\"nutrition\"))'"
    done = run_there(project, TOOL, **{**words, "_TYPER_COMPLETE_ARGS": "meetara-build pl"})
    assert '"plan":"Show what a build would do' in done.stdout


def test_a_bash_in_which_it_was_installed_completes(project: Path, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
    words = "meetara-build --install-completion; meetara-build --show-completion; true"  # a shell stays the parent of both
    done = run_there(tmp_path, "bash", "-c", words, **environment)
    assert done.returncode == 0, done.stderr
    assert "bash completion installed in" in done.stdout
    assert "complete -o default -F" in done.stdout
    above, below = pty.openpty()
    with subprocess.Popen(
        ["bash", "-i"],
        cwd=project,
        env={**os.environ, **environment},
        stdin=below,
        stdout=below,
        stderr=below,
        start_new_session=True,
    ) as shell:
        os.close(below)
        shown = ""
        for keys, whole in (
            ("meetara-build bui", "meetara-build build "),
            ("nutr", "build nutrition "),
            ("--pro", "nutrition --profile "),
            ("loc", "--profile local "),
        ):
            os.write(above, f"{keys}\t".encode())
            while not shown.endswith(whole):
                assert select.select([above], [], [], 30)[0], shown
                shown += os.read(above, 4096).decode()
        shell.kill()
    os.close(above)


def test_a_command_s_file_imports_nothing_that_takes_long() -> None:
    code = f"""
import json, sys, typer.main
from meetara_build.cli.app import app
def load(group):
    for name in group.commands:
        command = group.load(name)
        if hasattr(command, "load"):
            load(command)
load(typer.main.get_command(app))
print(json.dumps(sorted(set({HEAVY.split()!r}) & set(sys.modules))))
"""
    done = run_there(Path.cwd(), sys.executable, "-c", code)
    assert json.loads(done.stdout) == []
