"""Wrong records are found by how they were learnt and by what their words say."""

import random

import pytest

from meetara_build.toolbox.mislabelled import FEWEST_OF_A_TOPIC, doubts, hardness, suspects

WORDS = {
    "bread": ["flour", "yeast", "oven", "dough", "crust", "loaf", "knead", "rise", "bake", "salt"],
    "bikes": [
        "chain",
        "wheel",
        "brake",
        "pedal",
        "gear",
        "tyre",
        "spoke",
        "saddle",
        "frame",
        "pump",
    ],
    "stars": [
        "planet",
        "comet",
        "orbit",
        "galaxy",
        "moon",
        "telescope",
        "light",
        "night",
        "sky",
        "nova",
    ],
}


def said(topic: str, draw: random.Random, count: int = 8) -> str:
    return " ".join(draw.choices(WORDS[topic], k=count))


def records(each: int = 20) -> list[dict]:
    """Records whose question and answer use their topic's words."""
    draw = random.Random(0)
    return [
        {
            "id": f"{topic}{number}",
            "topic": topic,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": said(topic, draw)},
                {"role": "assistant", "content": said(topic, draw, 16)},
            ],
        }
        for topic in WORDS
        for number in range(each)
    ]


@pytest.fixture(scope="module")
def spoilt() -> list[dict]:
    """The answers of bread0 and bikes0 change places; stars0 says that it is about bread."""
    several = {record["id"]: record for record in records()}
    one, other = several["bread0"]["messages"], several["bikes0"]["messages"]
    one[-1], other[-1] = other[-1], one[-1]
    several["stars0"]["topic"] = "bread"
    return list(several.values())


def test_a_swapped_answer_and_a_wrong_topic_are_told_apart(spoilt: list[dict]) -> None:
    found = {one.id: one for one in suspects(spoilt, {})}
    assert {"bikes0", "stars0"} <= set(found) <= {"bread0", "bikes0", "stars0"}
    assert found["bikes0"].other_answer
    assert not found["stars0"].other_answer
    assert found["bikes0"].why == "its question says 'bikes', its answer 'bread'"
    assert found["stars0"].why == "its topic is 'bread', its words say 'stars'"


def test_the_same_records_give_the_same_suspects(spoilt: list[dict]) -> None:
    assert suspects(spoilt, {}) == suspects(spoilt, {})


def test_a_suspect_that_was_hard_to_learn_says_so(spoilt: list[dict]) -> None:
    losses = {
        record["id"]: [5.0 + at % 5 / 10, 4.0 + at % 5 / 10] for at, record in enumerate(spoilt)
    }
    losses["stars0"] = [8.0, 8.0]
    why = {one.id: one.why for one in suspects(spoilt, losses)}
    assert why["stars0"].endswith("; hard to learn")
    assert not why["bikes0"].endswith("hard to learn")


def test_few_records_of_a_topic_or_none_say_nothing() -> None:
    assert suspects(records(FEWEST_OF_A_TOPIC - 1), {}) == []
    assert suspects([{**record, "topic": None} for record in records()], {}) == []
    assert doubts({"a": ("x", "y")}, {"a": "bread"}) == {}


def test_good_records_are_left_alone() -> None:
    assert suspects(records(), {}) == []


def test_what_stays_high_is_harder_than_what_falls() -> None:
    losses = {f"r{at}": [6.0 + at / 10, 5.0 + at / 10] for at in range(9)}
    scores = hardness({**losses, "stays": [6.4, 6.4], "falls": [6.4, 4.0], "unseen": [None, None]})
    assert max(scores, key=lambda key: scores[key]) == "stays"
    assert scores["falls"] < 0
    assert "unseen" not in scores
