"""Mutants of answers have the fault that they are named after, and no other text."""

import random

import pytest

from bench.answer_checks import read_domains
from bench.answer_mutants import MUTANTS, Pool, Shipped
from meetara_build.stages.answers.checks import CHECK

RECORD = Shipped(
    "first_aid",
    "strict",
    "en",
    "She is burnt.",
    "Cool it for 20 minutes. Call 112 at once. Then give 5 ml, which costs 30 euros, and no more "
    "than that, however much she asks for it. Ask a doctor what else there is to do for her.",
)
OTHERS = [
    Shipped(
        "other", "standard", code, "How?", f"{text} Another text, that goes on and on for long."
    )
    for code, text in (("en", "Paint it."), ("es", "Píntelo."), ("hi", "रंग दीजिए।"))
    for _ in range(4)
]
POOL = Pool([RECORD, *OTHERS], OTHERS, frozenset({"112", "911"}))


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_mutant_is_another_text_and_the_same_each_time(kind: str) -> None:
    name, mutate = MUTANTS[kind]
    assert name in CHECK
    texts = [mutate(RECORD, POOL, random.Random(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert None not in texts
    assert RECORD.answer not in texts


def test_a_changed_emergency_number_is_no_known_one() -> None:
    mutate = MUTANTS["emergency number changed"][1]
    for seed in range(50):
        text = mutate(RECORD, POOL, random.Random(seed))
        assert text is not None
        assert "112" not in text.split()
        assert "911" not in text.split()


def test_a_record_that_cannot_have_a_fault_gets_none() -> None:
    plain = RECORD._replace(answer="Wait and see how it goes, with a cloth on it.")
    for kind in ("emergency number changed", "dose changed", "amount changed", "referral removed"):
        assert MUTANTS[kind][1](plain, POOL, random.Random(0)) is None


def test_what_is_held_out_is_not_among_what_its_domain_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.answer_checks.gather_knowledge", lambda *given: None)
    for domain in read_domains({}):
        assert domain.held_out
        for at in domain.held_out:
            assert domain.records[at] not in domain.training[domain.part[at]]
