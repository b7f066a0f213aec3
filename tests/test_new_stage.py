"""A new stage is a row, a module, a rule and a test: here one that counts words is added to a copy
of the tool, and built."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from projects import REPOSITORY, edit

ROW = """
    Stage(
        "words",
        DOMAIN,
        "words",
        "words.WordsRecipe",
        {"domain": _NAME, **_same("domain.languages", "build.data.max_tokens")},
        {"dataset": Read("dataset", ("train.jsonl",))},
        files=("words.json",),
    ),
"""
MODULE = '''
"""How many words a domain's training records have."""

import json
from pathlib import Path

from meetara_build.outside import parse_json
from meetara_build.stages.types import Inputs, Metrics, Recipe


class WordsRecipe(Recipe):
    """Whose words are counted, of which languages they are, and how long a record may be."""

    domain: str
    languages: list[str]
    max_tokens: int


def run(recipe: WordsRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``words.json``."""
    lines = (inputs["dataset"] / "train.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [turn["content"] for line in lines for turn in parse_json(line)["messages"]]
    found = {"domain": recipe.domain, "words": sum(len(turn.split()) for turn in turns)}
    (output / "words.json").write_text(json.dumps(found))
    return {"words": found["words"]}
'''
RULE = """
# DOMAIN/words: how many words a domain's training records have.
rule words:
    input:
        BUILD.inputs("words"),
    output:
        BUILD.outputs("words"),
    log:
        BUILD.log("words"),
    priority: BUILD.priority("words")
    threads: BUILD.threads("words")
    resources:
        mem_mb=BUILD.memory_mb("words"),
    params:
        fingerprint=BUILD.fingerprint("words"),
    shell:
        BUILD.shell("words")
"""
TEST = '''
"""The words stage."""

import json

from meetara_build.stages import words


def test_words_are_counted(tmp_path):
    said = {"messages": [{"role": "user", "content": "How much"}, {"role": "assistant", "content": "Two cups"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(said))
    recipe = words.WordsRecipe(domain="kitchen", languages=["en"], max_tokens=9)
    assert words.run(recipe, {"dataset": tmp_path}, tmp_path) == {"words": 4}
'''
WORDS = {f"{domain}/words" for domain in ("nutrition", "programming", "storytelling")}

Run = Callable[..., str]


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A copy of the tool with the stage: four files, of which one was there."""
    folder = tmp_path / "tool"
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "project")
    shutil.copytree(REPOSITORY / "meetara_build", folder / "meetara_build", ignore=ignored)
    table = folder / "meetara_build" / "graph" / "stages.py"
    before = table.read_text(encoding="utf-8")
    place = '    Stage(\n        "adapter",\n'
    assert before.count(place) == 1
    table.write_text(before.replace(place, f"{ROW.lstrip(chr(10))}{place}"), encoding="utf-8")
    (folder / "meetara_build" / "stages" / "words.py").write_text(MODULE.lstrip())
    (folder / "test_words.py").write_text(TEST.lstrip())
    return folder


@pytest.fixture
def run(tool: Path, project: Path, tmp_path: Path) -> Run:
    """Run the copy on a built project that has the rule."""
    (project / "rules" / "words.smk").write_text(RULE.lstrip())
    own = {"PYTHONPATH": str(tool), "TMPDIR": str(tmp_path)}
    environment = {**os.environ, **own, "PYTEST_ADDOPTS": ""}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def planned(run: Run, *words: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(run("meetara_build", "plan", "--json", *words))
    return {item["step"]: item for item in plan["items"]}


def test_a_stage_is_a_row_a_module_a_rule_and_a_test(run: Run, tool: Path, project: Path) -> None:
    run("pytest", "-q", str(tool / "test_words.py"))
    items = planned(run)
    assert set(items) == WORDS, "nothing that was built before is touched"
    assert {item["action"] for item in items.values()} == {"RUN"}
    assert all(item["estimate"]["seconds"] > 0 for item in items.values())
    run("snakemake", "nutrition", "--cores", "1", "--config", "warm=false", "--quiet", "all")
    folder = project / "artifacts" / "nutrition" / "words"
    assert json.loads((folder / "words.json").read_text())["words"] > 100
    assert {path.name for path in folder.iterdir()} == {"words.json", "manifest.json"}
    assert (project / "artifacts" / "logs" / "nutrition" / "words.log").exists()
    assert set(planned(run)) == WORDS - {"nutrition/words"}
    # An edit of a key that it reads is found, and said.
    edit(project / "conf" / "domain" / "nutrition.yaml", "languages", ["en"])
    causes = planned(run, "nutrition")["nutrition/words"]["causes"]
    assert [(cause["where"], cause["key"]) for cause in causes] == [
        ("conf/domain/nutrition.yaml", "languages")
    ]
