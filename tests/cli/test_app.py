"""The command line as a whole: exit codes, messages, JSON."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run_there
from projects import override

from meetara_build import cli
from meetara_build.cli.app import COMMANDS
from meetara_build.cli.group import file_of


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["stage", "--help"], 0),
        (["plan", "--help"], 0),
        (["plan"], 0),
        (["plan", "--detailed-exitcode"], 0),
        (["plan", "nutritoin"], 1),
        (["build", "nutritoin"], 1),
        (["plan", "--profile", "lokal"], 1),
        ([], 64),
        (["bild"], 64),
        (["plan", "--jason"], 64),
        (["add-domain"], 64),
        (["build", "--cores", "0"], 64),
        (["build", "--cores", "many"], 64),
        (["stage"], 64),
        (["stage", "adapter"], 64),
        (["stage", "adaptor", "nutrition"], 64),
        (["stage", "adapter", "nutrition", "--fast"], 64),
    ],
)
def test_exit_codes(built_project: Path, command: Any, words: list[str], status: int) -> None:
    done = command(built_project, *words)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert done.stderr
        assert not done.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_output_that_is_not_utf_8_gets_what_it_can_write(
    project: Path, command: Any, encoding: str
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    done = command(project, "plan", "nutrition", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "lora.rank: 16 -> 8  -> 1 domain" in done.stdout


def test_something_to_do_is_exit_code_2_only_where_asked_for(project: Path, command: Any) -> None:
    (project / "artifacts" / "nutrition" / "package" / "manifest.json").unlink()
    assert command(project, "plan").returncode == 0
    assert command(project, "plan", "--detailed-exitcode").returncode == 2
    assert command(project, "plan", "programming", "--detailed-exitcode").returncode == 0


@pytest.mark.parametrize("words", [["bild"], ["plan", "--jason"], ["add-domain"]])
def test_a_wrong_command_line_is_told_where_help_is(
    built_project: Path, command: Any, words: list[str]
) -> None:
    said = command(built_project, *words).stderr
    assert said.startswith("meetara-build")
    assert "--help`." in said
    assert len(said.strip().splitlines()) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["plan", "nutrition"],
        ["build"],
        ["status"],
        ["data", "check", "nutrition"],
        ["verify"],
        ["doctor"],
        ["chat", "nutrition", "What is fibre?", "--tokens", "4"],
        ["compare", "nutrition", "base:mini", "--count", "1", "--tokens", "4"],
    ],
)
def test_json_is_all_that_a_program_reads(
    built_project: Path, command: Any, words: list[str]
) -> None:
    done = command(built_project, *words, "--json")
    assert json.loads(done.stdout)
    assert done.returncode == 0 or words == ["doctor"]


@pytest.mark.parametrize(
    "words",
    [["plan", "nutritoin"], ["build", "nutritoin"], ["status", "nutritoin"], ["chat", "x", "y"]],
)
def test_an_error_leaves_nothing_for_a_program_to_read(
    built_project: Path, command: Any, words: list[str]
) -> None:
    done = command(built_project, *words, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("meetara-build: unknown domain ")


def test_tracebacks_are_shown_only_where_asked_for(built_project: Path, command: Any) -> None:
    assert "Traceback" not in command(built_project, "plan", "nutritoin").stderr
    assert "Traceback" in command(built_project, "--debug", "plan", "nutritoin").stderr


def test_what_no_one_foresaw_is_one_message(project: Path, command: Any) -> None:
    shutil.rmtree(project / ".meetara", ignore_errors=True)
    (project / ".meetara").write_text("a file where a folder should be")
    done = command(project, "plan")
    assert done.returncode == 1
    assert done.stderr.startswith("meetara-build: unexpected ")
    assert str(project / ".meetara") in done.stderr
    assert "run it again with --debug, and report what that shows" in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_a_project_every_command_says_how_to_make_one(tmp_path: Path, command: Any) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for words in (
        ["plan"],
        ["build"],
        ["status"],
        ["chat", "nutrition", "hi"],
        ["stage", "adapter", "nutrition"],
    ):
        done = command(empty, *words)
        assert done.returncode == 1
        assert (
            "no conf/build.yaml here or above; go to a project, or make one: `meetara-build init NAME`"
            in done.stderr
        )


def test_a_reader_that_goes_away_is_no_fault(built_project: Path) -> None:
    words = f"{shlex.quote(sys.executable)} -m meetara_build plan --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words],
        cwd=built_project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_help_loads_nothing_heavy() -> None:
    words = "import sys; sys.argv = ['meetara-build', '--help']; from meetara_build.__main__ import main\n"
    words += "try: main()\nexcept SystemExit: print(sorted({'torch', 'transformers', 'hydra', 'snakemake'} & set(sys.modules)))"
    done = run_there(Path.cwd(), sys.executable, "-c", words)
    assert done.stdout.endswith("[]\n")


GROUPS: list[tuple[str, ...]] = [(), ("data",), ("context",), ("context", "token")]


def help_lines(*words: str) -> list[str]:
    """The commands that a group's help lists on a terminal of 80 columns."""
    done = run_there(
        Path.cwd(), sys.executable, "-m", "meetara_build", *words, "--help", COLUMNS="80"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("Commands:\n")[2].splitlines()


def test_no_help_text_is_cut_off_in_a_list_of_80_columns() -> None:
    for group in GROUPS:
        for line in help_lines(*group):
            assert re.match(r"  [a-z]", line), f"{group}: {line}: runs over two lines"
            assert line.endswith("."), f"{group}: {line}: is cut off"
            assert not line.endswith(("...", "…")), f"{group}: {line}: is cut off"
            assert len(line) <= 80


def test_a_command_is_listed_with_what_its_own_help_says_first() -> None:
    for line in help_lines():
        name, _, said = line.strip().partition(" ")
        done = run_there(Path.cwd(), sys.executable, "-m", "meetara_build", name, "--help")
        assert said.strip() in done.stdout


def test_every_file_of_a_command_is_on_the_command_line() -> None:
    folder = Path(cli.__file__).parent
    holders = {path.stem for path in folder.glob("*.py") if holds_command(path)}
    assert {"build", "add_domain", "stage"} <= holders
    assert holders == {file_of(name) for name in COMMANDS} - {"data", "context"}


def holds_command(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == path.stem for node in tree.body)
