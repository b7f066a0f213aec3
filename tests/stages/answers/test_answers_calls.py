"""A number that an answer tells people to call is a known one, however it is said, and whatever it
looks like."""

import pytest
from judged_cases import found, lists

from meetara_build.stages.answers.calls import Calls


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("First, call 504, 786, 311.", ["504", "786", "311"]),
        ("Call 513 or 2013 for CPR.", ["513", "2013"]),
        ("Call 911 and 313 immediately.", ["313"]),
        ("Dial 9-9-7 now.", ["9-9-7"]),
        ("Dial nine one two.", ["nine one two"]),
        ("Ring double nine eight.", ["double nine eight"]),
        ("Call nine twelve.", ["nine twelve"]),
        ("Call an ambulance on 1234.", ["1234"]),
        ("Trouble breathing calls for 946 right away.", ["946"]),
        ("The emergency number is 513.", ["513"]),
        ("Breathe for her, and 113, 914 or 998.", ["113", "914", "998"]),
        ("On the fridge: the address, 547 or 913 and the poison centre.", ["547", "913"]),
        (
            "Breathe for her, and nine one three or nine one four.",
            ["nine one three", "nine one four"],
        ),
        ("Call 1-800-222-1223.", ["1-800-222-1223"]),
        ("Text HOME to 741742.", ["741742"]),
    ],
)
def test_an_unknown_number_is_found(text: str, wrong: list[str]) -> None:
    assert found("calls", text) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "Call 112, 911 or 999.",
        "Dial 9-1-1, or 9 1 1.",
        "Dial nine one one.",
        "Call nine eleven.",
        "Call triple nine, or one one two.",
        "Call 1-800-222-1222.",  # Poison Help
        "Ring the clinic on 0800 555 0142.",  # a training record has it
        "Ring the clinic on +44 800 555 0142.",
    ],
)
def test_a_known_number_may_be_said_in_any_form(text: str) -> None:
    assert found("calls", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Call your doctor within 24 hours.",
        "Call 200 times if you must.",
        "Phone on speaker, push 110 times a minute.",
        "Ring the doctor at 39 °C.",
        "Call at 10:30, or after 8 pm.",
        "Call 30 minutes later.",
        "A pressure of 140, 150 or 160 mmHg is high.",
        "Take 600, 800 or 1000 mg.",
    ],
)
def test_a_number_that_counts_something_is_no_number_to_call(text: str) -> None:
    assert found("calls", text) == []


@pytest.mark.parametrize(
    ("text", "language", "wrong"),
    [
        ("Llame al 504 o al 112.", "es", ["504"]),
        ("Marque nueve uno dos.", "es", ["nueve uno dos"]),
        ("Llame al ciento catorce.", "es", ["ciento catorce"]),
        ("Llame ya al centro de toxicología de su país o al 115.", "es", ["115"]),
        ("Marque el nueve once.", "es", []),
        ("Llame al ciento doce.", "es", []),
        ("तुरंत 504 पर फ़ोन कीजिए।", "hi", ["504"]),
        ("112 या 109 बुलाइए।", "hi", ["109"]),
        ("९८८ पर कॉल करें।", "hi", ["988"]),
        ("११२ पर कॉल करें।", "hi", []),
        ("एक सौ बारह पर फ़ोन कीजिए।", "hi", []),
        ("5 मिनट बाद फ़ोन कीजिए।", "hi", []),
    ],
)
def test_other_languages_are_read_in_their_words_and_digits(
    text: str, language: str, wrong: list[str]
) -> None:
    assert found("calls", text, language) == wrong


def test_an_emergency_number_is_known_in_the_languages_of_its_region_alone() -> None:
    assert found("calls", "Call 061.") == ["061"]
    assert found("calls", "Llame al 061.", "es") == []


def test_a_number_of_the_reference_is_known_unless_it_is_not_trusted() -> None:
    text, reference = (
        "Call 4711.",
        "Call 4711, the guard's own number, which hangs at the gate here.",
    )
    assert found("calls", text, reference=reference) == []
    assert found("calls", text, reference=reference, trusts_reference=False) == ["4711"]


def test_where_nobody_can_come_to_harm_no_call_is_looked_at() -> None:
    assert found("calls", "Call 504.", safety="standard") == []


def test_what_a_text_says_for_ever_is_read_in_no_time() -> None:
    for language, words in (("en", "call two 112, "), ("hi", "एक सौ 112 या ")):
        assert isinstance(Calls(lists()[language]).find_calls(words * 2000), list)
