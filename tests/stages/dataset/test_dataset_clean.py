"""Text as it was meant."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sources import everything, pairs

from meetara_build.stages.dataset.clean import language_of, mend

ENGLISH = "How much protein does a grown woman need in a day, and where does it come from?"
SPANISH = "¿Cuánta proteína necesita una mujer adulta al día y de qué alimentos la obtiene?"


def mended(text: str) -> str:
    """A record's only text, mended."""
    return mend([text])[0][0]


@pytest.mark.parametrize(
    ("raw", "meant", "changes"),
    [
        ("CafÃ© crÃ¨me", "Café crème", ["garbled text"]),
        ("It\x92s fine", "It’s fine", ["garbled text"]),
        ("cafe\u0301", "café", ["Unicode form"]),
        ("a\r\nb", "a\nb", ["line ends"]),
        ("\n\ntext\r\n", "text", ["line ends", "newlines at the ends"]),
    ],
)
def test_what_is_broken_is_mended_and_said(raw, meant, changes):
    assert mend([raw]) == [(meant, changes)]


@pytest.mark.parametrize(
    "right",
    [
        "“quoted” – it’s",
        "Write &amp; for an ampersand",
        "你好，世界！",
        "½ m²",
        "हिन्दी",
        "x = 1\n\n  y",
        "    total = 0\n    for x in xs:\n        total += x",
        "\treturn a  ",
        "printf '\x1b[31mred\x1b[0m\x07'",
        "ﬁne, ｆｕｌｌ width, zero\u200bwidth, \ufeffBOM",
        "It shows cafÃ© where I typed café",
        "My export shows â€™ for every apostrophe",
        "Excel shows MÃ¼ller",
        "My CSV has FranÃ§ois in it, what now?",
        'Why is it "GrÃ¼ÃŸe"?',
        "UTF-8 read as Latin-1 makes Ã© of it",
    ],
)
def test_what_is_right_is_left_alone(right):
    assert mend([right]) == [(right, [])]


def test_a_record_about_garbled_text_keeps_it_in_all_its_turns():
    about = ["What is Ã©?", "It is é, whose two bytes were read as two letters."]
    assert [text for text, _ in mend(about)] == about


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_mended_text_is_nfc_and_mending_again_changes_nothing(text):
    once = mended(text)
    assert mended(once) == once
    if "\0" not in text:
        assert unicodedata.is_normalized("NFC", once)


def test_records_are_mended_before_they_are_compared(prepared):
    records = pairs(40)
    records.append(
        {"prompt": f"CafÃ© {records[0]['prompt']}", "response": "Ã©t\u00c3\u00a9 Ã©clair"}
    )
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


CODE = "\r\n    return a\r\n"


def test_every_change_of_a_text_is_with_its_record_by_column(prepared):
    found = everything(prepared([*pairs(40), {"prompt": "CafÃ© ole", "response": CODE}]))
    record = found["nutrition.jsonl:41"]
    assert (record.prompt, record.response) == ("Café ole", "    return a")
    assert record.changed == {
        "prompt": ["garbled text"],
        "response": ["line ends", "newlines at the ends"],
    }
    assert all(not one.changed for one in found.values() if one is not record)


def test_without_repair_a_text_stays_as_it_is_to_the_last_byte(prepared):
    texts = {"prompt": " CafÃ© cafe\u0301 ole\n", "response": CODE}
    record = everything(prepared([*pairs(40), texts], repair_text=False))["nutrition.jsonl:41"]
    assert (record.prompt, record.response, record.changed) == (
        texts["prompt"],
        texts["response"],
        {},
    )


def test_html_becomes_text_where_that_is_asked_for_and_is_a_change_that_is_said(prepared):
    texts = {
        "prompt": "How many <b>eggs</b>?",
        "response": "<p>Two.</p><ul><li>One &amp; one</li></ul>",
    }
    given = [*pairs(40), texts]
    assert everything(prepared(given))["nutrition.jsonl:41"].response == texts["response"]
    record = everything(prepared(given, html_to_text=True))["nutrition.jsonl:41"]
    assert (record.prompt, record.response) == ("How many eggs?", "Two.\n\n- One & one")
    assert record.changed == {"prompt": ["HTML"], "response": ["HTML"]}
