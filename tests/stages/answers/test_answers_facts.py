"""Facts are found in any form, have one form, and are known if the prompt, the domain's records or
the reviewed lists have them."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from judged_cases import found, lists

from meetara_build.stages.answers.facts import Reader
from meetara_build.stages.answers.numbers import read_number, show_number
from meetara_build.stages.answers.words import normalise


def read(text: str, language: str = "en") -> list[tuple[str, ...]]:
    return [tuple(filter(None, one.fact)) for one in Reader(lists()[language]).find_facts(text)]


@pytest.mark.parametrize(
    ("text", "language", "facts"),
    [
        ("5 ml", "en", [("dose", "5", "ml")]),
        ("5ml", "en", [("dose", "5", "ml")]),
        ("0.2 L", "en", [("dose", "200", "ml")]),
        ("1,000 mg or 1 g", "en", [("dose", "1000", "mg")] * 2),
        ("250 micrograms", "en", [("dose", "0.25", "mg")]),
        ("150 to 200 ml", "en", [("dose", "150", "ml"), ("dose", "200", "ml")]),
        ("5, 10 or 15 mg", "en", [("dose", "10", "mg"), ("dose", "15", "mg"), ("dose", "5", "mg")]),
        ("two tablets", "en", [("dose", "2", "tablet")]),
        ("half a teaspoon", "en", [("dose", "0.5", "teaspoon")]),
        ("dos pastillas de 2,5 mg", "es", [("dose", "2", "tablet"), ("dose", "2.5", "mg")]),
        ("५०० मिलीग्राम, दो गोलियाँ", "hi", [("dose", "500", "mg"), ("dose", "2", "tablet")]),
        ("a 5G phone, 5 minutes", "en", []),
        ("$5,000", "en", [("amount", "5000", "USD")]),
        ("£15–20", "en", [("amount", "15", "GBP"), ("amount", "20", "GBP")]),
        ("2 million dollars, 5k USD", "en", [("amount", "2000000", "USD"), ("amount", "5000", "USD")]),
        ("1.000 euros", "es", [("amount", "1000", "EUR")]),
        ("2 लाख रुपये", "hi", [("amount", "200000", "INR")]),
        ("https://www.WHO.int/", "en", [("address", "who.int")]),
        ("write to help@care.org.", "en", [("address", "help@care.org")]),
        ("open log.txt, e.g. with file.seek", "en", []),
        ("Section 75 of the Consumer Credit Act 1974", "en", [("statute", "75"), ("statute", "consumer credit act 1974")]),
        ("§ 312", "en", [("statute", "312")]),
        ("artículo 14 de la Ley 1480", "es", [("statute", "14"), ("statute", "1480")]),
        ("धारा 420", "hi", [("statute", "420")]),
        ("+44 20 7946 0958", "en", [("phone", "442079460958")]),
        ("on 2025-03-14, 300–400 kWh, 0.30000000000000004", "en", []),
    ],
)  # fmt: skip
def test_a_fact_has_one_form(text: str, language: str, facts: list[tuple[str, ...]]) -> None:
    assert read(text, language) == facts


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("doses", "Give 5 ml of it."),
        ("doses", "Take 3 tablets."),
        ("amounts", "It costs $250 to call."),
        ("phones", "Their number is 0800 123 4567."),
        ("addresses", "See www.care-help.org."),
        ("addresses", "Write to info@care-help.org."),
        ("statutes", "Section 75 says so."),
        ("statutes", "The Bystander Protection Act 1998 covers you."),
    ],
)
def test_a_fact_that_nothing_has_is_found(check: str, text: str) -> None:
    assert found(check, text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("doses", "Give 0.15 l of juice."),  # a training record says 150 ml
        ("doses", "You took 3 tablets."),
        ("amounts", "It costs $250."),  # the prompt has the number alone
        ("addresses", "See clinic.example.org."),  # a page of it is known
        ("phones", "Their number is 0800-555-0142."),
        ("statutes", "Section 75 says so."),
    ],
)
def test_a_fact_of_the_prompt_or_of_a_training_record_is_known(check: str, text: str) -> None:
    prompt = "I took three tablets, was asked for 250, and they cite section 75."
    assert found(check, text, prompt=prompt) == []


def test_a_page_that_nobody_has_is_made_up_even_on_a_known_site() -> None:
    assert found("addresses", "See www.clinic.example.org/faq.") == ["www.clinic.example.org/faq"]


@given(st.text())
def test_what_is_normalised_stays_so(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.fractions(0, 10**20, max_denominator=100))
@example(Fraction(1999999, 2))
def test_a_number_in_its_one_form_is_read_as_itself(worth: Fraction) -> None:
    shown = show_number(worth)
    again = read_number(shown)
    assert again is not None
    assert show_number(again) == shown


@given(st.integers(0, 10**12))
def test_thousands_may_be_parted_or_not(number: int) -> None:
    assert read_number(f"{number:,}") == read_number(str(number)) == number


@pytest.mark.parametrize(
    ("text", "language", "worth"),
    [
        ("1,00,000", "hi", 100000),
        ("1.000", "es", 1000),
        ("1.000", "en", 1),
        ("0,125", "es", Fraction(1, 8)),
        ("1.234,5", "es", Fraction(2469, 2)),
        ("1½", "en", Fraction(3, 2)),
        ("1/4", "en", Fraction(1, 4)),
        ("twenty-five", "en", 25),
        ("two hundred thousand", "en", 200000),
        ("डेढ़", "hi", Fraction(3, 2)),
    ],
)
def test_numbers_as_people_write_them(text: str, language: str, worth: Fraction) -> None:
    assert read_number(text, lists()[language]) == worth


@pytest.mark.parametrize("text", ["", "about", "1/0", "two men", ".", ","])
def test_what_is_no_number_is_none_or_nothing(text: str) -> None:
    assert not read_number(text, lists()["en"])
