"""A plan, and a build, say which built data sets lost many of their records, and which key
decides."""

import json
from pathlib import Path

import jsonschema
import pytest
from projects import REPOSITORY, edit, override, read_yaml, write_yaml

from meetara_build.cli.plan import plan as show_plan
from meetara_build.engine.stage_run import run
from meetara_build.graph import load
from meetara_build.plan import causes, plan
from meetara_build.plan.data_losses import data_losses

SCHEMA = json.loads(Path(causes.__file__).with_name("schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def lossy(project: Path) -> Path:
    """A project with a data set, built and of no use to its base, that lost 8 of 48 records to a
    limit."""
    folder = project / "conf" / "domain"
    lines = (
        (REPOSITORY / "conf" / "domain" / "writing.jsonl").read_text(encoding="utf-8").splitlines()
    )
    others = (
        (REPOSITORY / "conf" / "domain" / "marketing.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    long = [
        json.dumps({**(record := json.loads(line)), "response": record["response"] * 20})
        for line in others[:8]
    ]
    (folder / "letters.jsonl").write_text("\n".join([*lines, *long]) + "\n", encoding="utf-8")
    domain = read_yaml(folder / "storytelling.yaml")
    write_yaml(folder / "letters.yaml", {**domain, "sources": [{"path": "letters.jsonl"}]})
    graph = load(project)
    run(graph, graph.step("dataset", "letters"), cold=True, debug=True)
    return project


def test_losses_of_more_than_a_tenth_are_said_with_counts_and_keys(
    lossy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lossy)
    said = "letters: 8 of 48 records (17%) are left out: 8 too long (data.max_tokens 900)."
    assert [one.text() for one in data_losses(load(lossy), plan(load(lossy)))] == [said]
    show_plan([], "local", as_json=False, out=None)
    assert said in capsys.readouterr().out.splitlines()
    show_plan(["letters"], "local", as_json=True, out=None)
    shown = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(shown)
    assert shown["data_losses"] == [
        {
            "domain": "letters",
            "read": 48,
            "by_reason": {"too long": 8},
            "keys": {"too long": "data.max_tokens"},
        }
    ]


def test_a_data_set_that_will_be_another_is_not_spoken_of(lossy: Path) -> None:
    override(lossy, "letters", {"data.max_tokens": 8000})
    assert data_losses(load(lossy), plan(load(lossy))) == []


def test_domains_that_lost_little_or_were_not_asked_for_have_no_such_line(lossy: Path) -> None:
    assert data_losses(load(lossy), plan(load(lossy), ["nutrition"])) == []
    edit(lossy / "conf" / "build.yaml", "domains", ["nutrition", "programming", "storytelling"])
    assert data_losses(load(lossy), plan(load(lossy))) == []
