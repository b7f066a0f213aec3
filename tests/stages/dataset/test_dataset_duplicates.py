"""What is a copy, what is kin, and what is neither."""

import numpy as np
import pytest
from made_sources import pairs, sentence

from meetara_build.stages.dataset import pairs as pairing
from meetara_build.stages.dataset.duplicates import distinct
from meetara_build.stages.dataset.records import Record, content_id


def records(*said):
    found = []
    for line, (prompt, response) in enumerate(said, 1):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        found.append(Record(content_id(messages), messages, "en", None, f"a.jsonl:{line}"))
    return found


QUESTION = "How many grams of protein does an adult need each day to stay healthy?"
ANSWER = "About 0.8 grams for each kilogram of body weight; more after sixty or with hard training."
OTHER = "Count on a palm of fish, beans or eggs at every meal and you will hardly ever fall short of it."
REST = [(record["prompt"], record["response"]) for record in pairs(30)]


def drops_of(*said, **changes):
    bounds = {"near_duplicate": 0.85, "near_group": 0.6, **changes}
    return [
        (d.source, d.reason, d.matched) for d in distinct(records(*REST, *said), **bounds).drops
    ]


def are_kin(left, right):
    found = distinct(records(*REST, left, right), 0.85, 0.6)
    assert len(found.records) == 32, "one was dropped"
    return found.groups[30] == found.groups[31]


def test_case_spacing_and_width_make_no_difference():
    copy = (f"  {QUESTION.upper()}\n", ANSWER.replace(" ", "\u00a0 "))
    assert drops_of((QUESTION, ANSWER), copy) == [("a.jsonl:32", "duplicate", "a.jsonl:31")]


@pytest.mark.parametrize(
    "question",
    [
        QUESTION.replace("protein", "protien"),
        QUESTION.replace("?", " !!"),
        QUESTION.replace("each day", "every day"),
        f"Please: {QUESTION}",
    ],
)
def test_a_slightly_changed_copy_is_dropped_and_names_the_record_it_matched(question):
    dropped = distinct(
        records(*REST, (QUESTION, ANSWER), (question, ANSWER + " Really.")), 0.85, 0.6
    ).drops
    assert [(d.source, d.reason, d.matched) for d in dropped] == [
        ("a.jsonl:32", "near-duplicate", "a.jsonl:31")
    ]
    assert 0.85 <= dropped[0].similarity <= 1.0


def test_near_duplicates_are_found_in_other_scripts():
    hindi = (
        "एक वयस्क को स्वस्थ रहने के लिए हर दिन कितने ग्राम प्रोटीन चाहिए?",
        "शरीर के हर किलो पर लगभग 0.8 ग्राम, कठिन व्यायाम में अधिक।",
    )
    chinese = (
        "成年人每天需要多少克蛋白质才能保持健康？",
        "每公斤体重大约零点八克，六十岁以后或者剧烈运动时需要更多。",
    )
    for prompt, response in (hindi, chinese):
        dropped = drops_of((prompt, response), (prompt.rstrip("?？"), response.rstrip("।。")))
        assert [reason for _, reason, _ in dropped] == ["near-duplicate"]


def test_another_answer_to_the_same_question_is_kept_as_kin():
    assert are_kin((QUESTION, ANSWER), (QUESTION, OTHER))


def test_the_same_answer_to_another_question_is_kept_as_kin():
    assert are_kin(
        (QUESTION, ANSWER),
        ("What is the daily amount of protein that a grown person has to eat?", ANSWER),
    )


def test_a_short_label_that_many_records_share_makes_no_kin():
    said = [(sentence(n, 9), "card_arrival") for n in range(200, 240)]
    assert len(set(distinct(records(*said), 0.85, 0.75).groups)) == 40


def test_an_instruction_that_all_records_share_makes_no_kin():
    said = [("Tell me something.", sentence(n, 12)) for n in range(40)]
    assert len(set(distinct(records(*said), 0.85, 0.6).groups)) == 40


def test_a_refusal_that_many_records_share_makes_no_kin():
    refusal = (
        "I am not able to advise on that; please ask a pharmacist or the doctor who prescribed it."
    )
    said = [(sentence(n, 9), refusal) for n in range(300, 340)]
    assert len(set(distinct(records(*said), 0.85, 0.6).groups)) == 40


def test_unlike_records_are_neither():
    found = distinct(records(*REST), 0.85, 0.6)
    assert found.drops == []
    assert len(set(found.groups)) == 30


def test_kinship_is_passed_on():
    found = distinct(
        records(
            *REST, (QUESTION, ANSWER), (QUESTION, OTHER), (QUESTION + " Tell me.", sentence(1))
        ),
        0.85,
        0.6,
    )
    assert len(set(found.groups[30:])) == 1


def test_a_copy_of_a_dropped_record_names_the_one_that_stays():
    chain = [(QUESTION, ANSWER), (QUESTION + " ok", ANSWER), (QUESTION, ANSWER + " ok")]
    assert {matched for _, _, matched in drops_of(*chain)} == {"a.jsonl:31"}


def test_a_bound_of_one_drops_exact_copies_only():
    said = [(QUESTION, ANSWER), (QUESTION + " ok", ANSWER), (QUESTION, ANSWER)]
    assert drops_of(*said, near_duplicate=1.0) == [("a.jsonl:33", "duplicate", "a.jsonl:31")]


def test_texts_without_a_letter_are_compared_exactly():
    said = [(mark * n, "→") for n, mark in enumerate("+-*/=<>|~^", 1)]
    found = distinct(records(*said, said[0]), 0.85, 0.6)
    assert len(found.records) == 10


def test_blocks_change_nothing(monkeypatch):
    said = [
        *REST,
        *((prompt + " now", response) for prompt, response in REST),
        (QUESTION, ANSWER),
        (QUESTION, OTHER),
    ]
    whole = distinct(records(*said), 0.85, 0.6)
    monkeypatch.setattr(pairing, "BLOCK_PRODUCTS", 1)
    small = distinct(records(*said), 0.85, 0.6)
    assert whole.drops == small.drops
    assert len(whole.drops) == 30
    alike = np.equal.outer(whole.groups, whole.groups) == np.equal.outer(small.groups, small.groups)
    assert alike.all()


def test_thousands_of_answers_to_a_few_questions_are_compared_by_their_answers() -> None:
    numbers = np.random.default_rng(5)
    words = ["".join(numbers.choice(list("abcdefghijklmnop"), 7)) for _ in range(900)]
    questions = ["Write a story.", "Tell me a tale.", "Explain it to me!"]
    said = [(questions[at % 3], " ".join(numbers.choice(words, 12))) for at in range(4_000)]
    found = distinct(records(*said, (questions[0], said[0][1] + " indeed"), *REST), 0.85, 0.6)
    assert [(drop.reason, drop.matched) for drop in found.drops] == [
        ("near-duplicate", "a.jsonl:1")
    ]
    # What a third of the records ask makes no kin, so that something can be held out.
    assert len(set(found.groups)) > 3_900
