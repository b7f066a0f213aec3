"""A plan says which built domains have models that are held back, and why."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fast_stages import REASON, UNREACHED, build
from projects import edit

from meetara_build.cli.plan import plan as show_plan
from meetara_build.graph import load
from meetara_build.plan import causes, plan
from meetara_build.plan.held_back import HeldBack, list_held_back

SCHEMA = json.loads(Path(causes.__file__).with_name("schema.json").read_text(encoding="utf-8"))


def listed(project: Path, *domains: str) -> list[HeldBack]:
    return list_held_back(plan(load(project), domains))


def ask_for(project: Path, domain: str, share: float) -> None:
    edit(project / "conf" / "domain" / f"{domain}.yaml", "evaluation.beat_base_by", share)


def test_after_a_build_that_all_pass_none_is_held_back(built: Path) -> None:
    assert listed(built) == []


def test_a_domain_is_listed_with_code_reason_and_all_that_was_said(held_back: Path) -> None:
    [found] = listed(held_back)
    assert (found.domain, found.code) == ("nutrition", "gate-answers")
    assert found.line() == f"{REASON} [gate-answers]"
    assert found.text().startswith("nutrition: not packaged:\n")
    assert "said: Call 504." in found.text()
    assert found.text().endswith("[gate-answers]")


def test_all_that_are_held_back_are_listed_and_only_those_that_were_asked_for(
    held_back: Path,
) -> None:
    ask_for(held_back, "music", UNREACHED)
    build(held_back)
    assert {one.domain for one in listed(held_back)} == {"music", "nutrition"}
    assert [one.domain for one in listed(held_back, "music")] == ["music"]
    assert listed(held_back, "storytelling") == []


def test_what_will_be_judged_again_is_not_spoken_of(held_back: Path) -> None:
    ask_for(held_back, "nutrition", 0.1)
    assert listed(held_back) == []
    build(held_back)
    assert listed(held_back) == []


def test_what_was_judged_before_is_known_before_it_is_restored(held_back: Path) -> None:
    ask_for(held_back, "nutrition", 0.1)
    build(held_back)
    ask_for(held_back, "nutrition", UNREACHED)
    assert [one.domain for one in listed(held_back)] == ["nutrition"]
    shutil.rmtree(held_back / "artifacts" / "nutrition" / "package")
    assert [one.domain for one in listed(held_back)] == ["nutrition"]


def test_nothing_is_to_do_again_for_what_is_held_back(held_back: Path) -> None:
    assert plan(load(held_back)).to_do() == []
    assert build(held_back).announced == {}


@pytest.fixture
def shown(
    held_back: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(held_back)

    def show(*domains: str, as_json: bool) -> str:
        capsys.readouterr()
        show_plan(list(domains), "local", as_json=as_json, out=None)
        return capsys.readouterr().out

    return show


def test_a_plan_has_a_line_for_each(shown: Any) -> None:
    said = f"Held back: nutrition: {REASON} [gate-answers]"
    assert said in shown(as_json=False).splitlines()
    assert "Held back" not in shown("music", as_json=False)


def test_a_plan_for_programs_has_code_and_message(shown: Any) -> None:
    found = json.loads(shown(as_json=True))
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    [one] = found["held_back"]
    assert (one["domain"], one["code"]) == ("nutrition", "gate-answers")
    assert REASON in one["message"]
    assert json.loads(shown("music", as_json=True))["held_back"] == []
