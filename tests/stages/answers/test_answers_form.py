"""An answer ends by itself and whole, goes round in no circles, and is about as long as it should
be."""

import pytest
from judged_cases import REFERENCE, found, judge

from meetara_build.stages.answers.form import find_loop


def checks(text: str, language: str = "en", **changes: object) -> set[str]:
    return {one.check for one in judge(text, language, **changes)}  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["en", "es", "hi"])
def test_the_reference_itself_is_without_fault(language: str) -> None:
    assert judge(REFERENCE[language], language) == []


@pytest.mark.parametrize(
    "text", ["Call 112 and", "Call 112, and then:", "", "Run this:\n```\nls -l\n```\n```"]
)
def test_what_stops_in_mid_sentence_does_not_end(text: str) -> None:
    assert "ends" in checks(text)


def test_what_was_stopped_at_the_limit_does_not_end_however_it_looks() -> None:
    assert "ends" in checks(REFERENCE["en"], ended=False)


@pytest.mark.parametrize(
    "text", ["Call 112.", 'He said: "Call 112."', "Call 112 (or 911)", "112 पर फ़ोन कीजिए।"]
)
def test_a_closed_sentence_bracket_or_quotation_is_an_end(text: str) -> None:
    assert "ends" not in checks(text)


def test_where_the_reference_has_no_sign_at_its_end_no_answer_needs_one() -> None:
    assert not found("ends", "x = 4", reference="x = 3")


@pytest.mark.parametrize(
    "text",
    [
        "Call for help and wait. " + "Push hard and fast. " * 4,
        "Call help, call help, call help, call help, call help now.",
        "no no no no no no no no no no no no",
        "The second is the rule that can be switched off by a click on the tray. The third is the "
        "rule that can be switched off by a click on the tray.",
        "First " + "".join(f"take {n} mg of it, " for n in range(1, 12)) + "then stop.",
        "छाती दबाइए और रुकिए मत। " * 4,
    ],
)
def test_what_is_said_over_and_over_is_a_loop(text: str) -> None:
    assert find_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        REFERENCE["en"],
        "No, no. Push, push, push: hard and fast, hard and fast.",
        "Breakfast 400, lunch 600, dinner 500, and a snack of 100 or 200 between them.",
        "",
    ],
)
def test_what_is_said_twice_for_good_reasons_is_none(text: str) -> None:
    assert find_loop(text) is None


@pytest.mark.parametrize(("words", "fits"), [(3, False), (12, True), (60, True), (200, False)])
def test_length_is_held_against_the_reference(words: int, fits: bool) -> None:
    text = " ".join(f"word{n}" for n in range(words)) + "."
    assert ("length" not in checks(text)) is fits


@pytest.mark.parametrize(
    ("asked", "said"), [("en", "es"), ("en", "hi"), ("es", "en"), ("hi", "en"), ("es", "hi")]
)
def test_an_answer_is_in_the_language_asked_for(asked: str, said: str) -> None:
    assert "language" in checks(REFERENCE[said], asked)
    assert "language" not in checks(REFERENCE[asked], asked)
