"""What a local build does not need is an extra, and whoever lacks one is told how to get it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from projects import REPOSITORY

from meetara_build.errors import SetupError, needs
from meetara_build.toolbox.mislabelled import doubts

LIBRARIES = ("cleanlab", "matplotlib", "mcp", "optuna", "psycopg", "starlette", "uvicorn")
POSTGRES = "postgresql://me@127.0.0.1/context"


def without(library: str, folder: Path, *words: str, context: str = "") -> str:
    """What a command says, with status 1, where a library is not installed."""
    code = (
        f"import os, sys; sys.modules[{library!r}] = None; sys.argv = ['meetara-build', *{words!r}]\n"
        f"os.environ['MEETARA_CONTEXT'] = {context!r}\n"
        "from meetara_build.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("library", "extra", "context", "words"),
    [
        ("optuna", "tune", "", ["tune", "nutrition"]),
        ("matplotlib", "tune", "", ["tune", "nutrition"]),
        ("mcp", "serve", "", ["context", "serve"]),
        ("uvicorn", "serve", "", ["context", "serve"]),
        ("mcp", "serve", "http://127.0.0.1:1/mcp", ["context", "show"]),
        ("psycopg", "postgres", POSTGRES, ["context", "show"]),
    ],
)
def test_a_command_that_lacks_an_extra_says_how_to_get_it(
    built_project: Path, library: str, extra: str, context: str, words: list[str]
) -> None:
    said = without(library, built_project, *words, context=context)
    told = f"{library} is not installed; get it with `pip install 'meetara-build[{extra}]'`"
    assert " ".join(said.split()).endswith(f"{told} [setup]")


def test_a_report_that_cannot_be_drawn_is_refused_before_anything_is_built(project: Path) -> None:
    (project / "artifacts" / "report" / "manifest.json").unlink(missing_ok=True)
    said = without("matplotlib", project, "build")
    assert "pip install 'meetara-build[report]'" in said
    assert "1 job" not in said


def test_jobs_of_other_stages_need_no_extra() -> None:
    code = (
        f"import sys; sys.modules |= dict.fromkeys({LIBRARIES!r})\n"
        "from meetara_build.engine.warm import load_all; load_all()\n"
        "print('meetara_build.stages.package' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_an_agent_that_lacks_a_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(SetupError, match=r"cleanlab is not installed; .*meetara-build\[agents\]"):
        doubts({}, {})


def test_a_module_of_our_own_that_is_missing_is_no_extra() -> None:
    with pytest.raises(ModuleNotFoundError), needs("serve"):
        import meetara_build.nowhere  # noqa: F401


def test_every_extra_that_is_named_can_be_installed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [*(REPOSITORY / "meetara_build").rglob("*.py"), *(REPOSITORY / "plugins").glob("*.py")]
    named = {
        extra
        for path in files
        for extra in re.findall(
            r'(?:needs\("|meetara-build\[)(\w+)', path.read_text(encoding="utf-8")
        )
    }
    extras = {"agents", "embeddings", "postgres", "report", "serve", "tune"}
    assert named == extras == set(project["optional-dependencies"]) - {"test"}
    tests = project["optional-dependencies"]["test"]
    assert f"meetara-build[{','.join(sorted(extras))}]" in tests, "what is tested is installed"
