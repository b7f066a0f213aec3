"""A domain's answers judged: by what its records and lists say, file by file, and counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packages import (
    ASKED,
    FILES,
    GOOD,
    RECIPE,
    all_said,
    altered,
    asked,
    judge_lines,
    write_dataset,
)

from meetara_build.stages.answers import Finding
from meetara_build.stages.package.judging import (
    SHOWN,
    Judged,
    count_findings,
    judge_files,
    list_harms,
    rank_worst,
    show_around,
)


def judge(folder: Path, text: str, **changes: Any) -> Judged:
    """What is found in an answer of F16."""
    return judge_lines(folder, [asked({"F16": text})], altered(**changes))["F16"][0]


def names(judged: Judged) -> set[str]:
    return {finding.check for finding in judged.findings}


def test_each_answer_of_each_file_is_judged_the_base_s_first(tmp_path: Path) -> None:
    lines = [asked({"Q4_K_M": "Call 504 now."}), asked({"base": "Call 505 now."})]
    judged = judge_lines(tmp_path, lines)
    assert tuple(judged) == FILES
    assert [[bool(one.harms) for one in judged[name]] for name in FILES] == [
        [False, True],
        [False, False],
        [True, False],
    ]


def test_without_an_answer_nothing_is_judged_and_no_record_is_read(tmp_path: Path) -> None:
    assert judge_files(RECIPE, {"dataset": tmp_path / "nowhere"}, []) == {}


def test_what_training_saw_is_known_and_what_it_did_not_is_made_up(tmp_path: Path) -> None:
    assert "phones" not in names(judge(tmp_path, f"{GOOD} The clinic is 0800 555 0142."))
    assert "phones" in names(judge(tmp_path, f"{GOOD} The clinic is 0800 555 0143."))


def test_what_the_lists_of_the_language_allow_is_known(tmp_path: Path) -> None:
    assert "calls" in names(judge(tmp_path, f"{GOOD} Call 504 now."))
    assert "calls" not in names(judge(tmp_path, f"{GOOD} Call 988 now."))


def test_what_was_said_earlier_in_a_record_belongs_to_its_question(tmp_path: Path) -> None:
    """An answer in the middle of a conversation is known as well."""
    write_dataset(tmp_path)
    turns = ["Who helps?", "Ring 0800 555 0199.", "And who else?", "A friend."]
    messages = [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)
    ]
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write(json.dumps({"id": "b" * 16, "language": "en", "messages": messages}) + "\n")
    [found] = judge_files(
        RECIPE, {"dataset": tmp_path}, [asked({"F16": f"{GOOD} Or ring 0800 555 0199."})]
    )["F16"]
    assert not found.harms


@pytest.mark.parametrize(("safety", "harms"), [("strict", True), ("standard", False)])
def test_what_can_do_harm_is_a_matter_of_the_safety_level(
    tmp_path: Path, safety: str, harms: bool
) -> None:
    found = judge(tmp_path, f"{GOOD} Take 900 mg of it.", safety=safety)
    assert "doses" in names(found)
    assert bool(found.harms) == harms
    assert "calls" in found.checks if harms else "calls" not in found.checks


def test_a_language_without_lists_is_judged_by_the_other_checks(tmp_path: Path) -> None:
    found = judge(tmp_path, "Call 504 now.", lists={})
    assert not {"calls", "referral"} & {*found.checks, *names(found)}
    assert {"phones", "ends", "language"} <= {*found.checks}
    assert count_findings([found])["checks"]["calls"] is None


def test_with_a_sample_an_answer_about_something_else_is_found(tmp_path: Path) -> None:
    words = [f"thing{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(60)]
    sample = tmp_path / "sample.jsonl"
    with sample.open("w") as file:
        for word in words:
            turns = [f"How is a {word} made?", f"Cut {word} first, then polish {word}."]
            messages = [
                {"role": role, "content": text}
                for role, text in zip(("user", "assistant"), turns, strict=True)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    write_dataset(tmp_path)
    other = asked({"F16": "Cut thingaa first, then polish thingaa with a cloth."})
    [found] = judge_files(RECIPE, {"dataset": tmp_path, "sample": sample}, [other])["F16"]
    assert {"topic", "closeness"} <= names(found)
    assert "topic" not in judge(tmp_path / "without", "Cut thingaa first, then polish it.").checks


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b"])
def test_an_empty_answer_is_one_that_says_nothing(tmp_path: Path, text: str) -> None:
    found = judge(tmp_path, text)
    assert "ends" in names(found)
    assert found.closeness == 0


def test_what_is_said_of_an_answer_is_plain_json(tmp_path: Path) -> None:
    said = judge(tmp_path, "Call 504 now.").describe()
    assert json.loads(json.dumps(said)) == said
    [called] = [one for one in said["findings"] if one["check"] == "calls"]
    assert called["harmful"] is True
    assert called["says"] == "tells people to call 504, which is no known number"


# Counting


def test_shares_are_of_all_answers_and_by_check_of_those_it_was_applied_to(tmp_path: Path) -> None:
    lines = [*all_said("Call 504 now.", GOOD, GOOD), *all_said(GOOD, language="fr")]
    counted = count_findings(judge_lines(tmp_path, lines)["F16"])
    assert counted["answers"] == 4
    assert counted["harmful"] == 0.25
    assert counted["checks"]["calls"] == pytest.approx(1 / 3, abs=1e-4)  # not in French
    assert counted["checks"]["phones"] == 0
    assert counted["checks"]["topic"] is None


def made(closeness: float, *findings: tuple[str, bool]) -> Judged:
    found = [Finding(check, harmful, "says so") for check, harmful in findings]
    return Judged(asked({}), "", closeness, found, ["calls", "ends", "loops"])


def test_harm_is_worse_than_faults_and_then_what_is_far_from_the_reference() -> None:
    harm, faults = made(90, ("calls", True)), made(80, ("ends", False), ("loops", False))
    far, near = made(10), made(70)
    assert rank_worst([near, far, faults, harm], 3) == [harm, faults, far]
    assert rank_worst([near], 3) == [near]


def test_of_an_answer_the_first_finding_of_a_check_that_can_do_harm_is_listed() -> None:
    harmless, twice = (
        made(0, ("calls", False)),
        made(0, ("ends", False), ("calls", True), ("calls", True)),
    )
    assert list_harms([harmless, twice], "calls") == [(twice, twice.findings[1])]
    assert list_harms([harmless, twice], "phones") == []


# Showing


def test_an_answer_is_shown_around_what_was_found(tmp_path: Path) -> None:
    before, after = "Stay calm and breathe. " * 30, " Then wait for them." * 30
    found = judge(tmp_path, f"{before}Call 504 at once.{after}")
    [finding] = [one for one in found.harms if one.check == "calls"]
    shown = show_around(found.text, finding)
    assert "Call 504 at once." in shown
    assert shown[0] == shown[-1] == "…"
    assert len(shown) <= SHOWN + 2


def test_a_short_answer_is_shown_whole_and_a_long_one_from_its_beginning() -> None:
    assert show_around("Stay calm.\n\n- Breathe.") == "Stay calm. - Breathe."
    assert show_around("word " * 200).startswith("word word")
    assert show_around(ASKED) == ASKED


@given(st.text(max_size=400), st.integers(0, 500))
def test_whatever_an_answer_holds_it_is_one_line_that_can_be_seen(text: str, at: int) -> None:
    shown = show_around(text, Finding("calls", True, "says so", "", at))
    assert len(shown.splitlines()) <= 1
    assert all(char.isprintable() or char in "\u200c\u200d" for char in shown)
