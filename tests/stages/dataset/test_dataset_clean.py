"""Text as it was meant."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sources import everything, pairs

from meetara_build.stages.dataset.clean import language_of, mend

ENGLISH = "How much protein does a grown woman need in a day, and where does it come from?"
SPANISH = "¿Cuánta proteína necesita una mujer adulta al día y de qué alimentos la obtiene?"


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ("CafÃ© crÃ¨me", "Café crème"),
        ("cafe\u0301", "café"),
        ("a\r\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m\x07", "red"),
        ("  \n text \t", "text"),
    ],
)
def test_what_is_broken_is_mended(raw, meant):
    assert mend(raw) == meant


@pytest.mark.parametrize(
    "right", ["“quoted” – it’s", "Write &amp; for an ampersand", "你好，世界！", "½ m²", "हिन्दी", "x = 1\n\n  y"]
)
def test_what_is_right_is_left_alone(right):
    assert mend(right) == right


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_mended_text_is_nfc_and_mending_again_changes_nothing(text):
    once = mend(text)
    assert mend(once) == once
    if "\0" not in text:
        assert unicodedata.is_normalized("NFC", once)


def test_records_are_mended_before_they_are_compared(prepared):
    records = pairs(40)
    records.append({"prompt": f"CafÃ© {records[0]['prompt']}", "response": "Ã©t\u00c3\u00a9 Ã©clair"})
    found = everything(prepared(records))
    assert found["nutrition.jsonl:41"].response == "été éclair"


@pytest.mark.parametrize(
    ("prompt", "response", "stated", "fallback", "expected", "language"),
    [
        (ENGLISH, "", None, "es", ["es"], "en"),
        (SPANISH, "", None, "en", ["en"], "es"),
        ("क्या मुझे रोज़ दूध पीना चाहिए और कितना पीना चाहिए, यह बताइए", "", None, "en", ["en"], "hi"),
        ("¿Qué comer?", "Fruta.", None, "en", ["en", "es"], "es"),
        ("¿Qué comer?", "Fruta.", None, "en", ["en"], "en"),
        ("2 + 2", "4", None, "es", ["en", "es"], "es"),
        (ENGLISH, "", "pt-BR", "en", ["en"], "pt"),
        (ENGLISH, "", "see notes", "es", ["es"], "en"),
    ],
)
def test_a_language_is_stated_or_recognised_and_short_texts_are_the_domains(
    prompt, response, stated, fallback, expected, language
):
    assert language_of(prompt, response, stated, fallback, expected) == language


def test_a_sources_language_counts_for_its_short_records(prepared):
    records = [{"prompt": str(n * 7919), "response": f"{n * 104729}."} for n in range(40)]
    found = prepared(records, source={"language": "hi"}, near_duplicate=1.0, near_group=1.0)
    assert {record.language for record in found.train} == {"hi"}
