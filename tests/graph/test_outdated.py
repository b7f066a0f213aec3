"""The tool may be upgraded while it runs: what old code works out is not kept for the new."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from projects import REPOSITORY, override, small_project

from meetara_build.graph import tool_state

SERVER = """
import sys
from pathlib import Path
from meetara_build.graph import load

for line in sys.stdin:
    print(load(Path(line.strip())).step("adapter", "nutrition").recipe["training"]["epochs"], flush=True)
"""


def test_a_process_that_is_older_than_the_tool_keeps_nothing_for_others(tmp_path: Path) -> None:
    package = tmp_path / "installed" / "meetara_build"
    shutil.copytree(
        REPOSITORY / "meetara_build",
        package,
        ignore=shutil.ignore_patterns("__pycache__", "project"),
    )
    project = small_project(tmp_path / "project", ["nutrition"])
    kept = [project / ".meetara" / name for name in ("graph-default.json", "code.json")]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        text=True,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{project}\n")
        server.stdin.flush()
        first = server.stdout.readline()
        before = [path.read_bytes() for path in kept]
        with (package / "graph" / "recipes.py").open("a") as code:
            code.write("\nUPGRADED = True\n")
        override(project, "base/mini", {"training.epochs": 7})
        said = server.communicate(f"{project}\n{project}\n")
    assert (first, said[0]) == ("2\n", "7\n7\n"), "it goes on, by the code that it has"
    assert said[1] == (
        "meetara-build: the tool or a library was changed while this runs; restart it to use what is new\n"
    )
    assert [path.read_bytes() for path in kept] == before


def test_what_a_user_installs_for_themselves_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "USER_SITE", str(tmp_path))
    before = tool_state()
    assert tool_state() == before
    (tmp_path / "peft-1.0.dist-info").mkdir()
    os.utime(tmp_path, (1, 1))
    assert tool_state() != before
