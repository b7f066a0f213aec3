"""Weak topics are told from chance, and how many more records they need is said with how sure that
is."""

import random

import pytest

from meetara_build.toolbox.topics import Law, law, more_records, topics_of


def lines(means: dict[str, float], each: int = 20, seed: int = 0) -> list[dict]:
    """Records of adapter/records.jsonl; their first losses vary around their topic's mean, the last
    are all the same."""
    draw = random.Random(seed)
    return [
        {"id": f"{topic}{at}", "topic": topic, "losses": [draw.gauss(mean, 0.3), 3.0]}
        for topic, mean in means.items()
        for at in range(each)
    ]


def test_a_topic_far_above_the_others_is_weak() -> None:
    found = topics_of(lines({"a": 5.0, "b": 5.0, "c": 5.8}))
    assert [topic.name for topic in found if topic.weak] == ["c"]
    assert (found[0].name, found[0].records) == ("c", 20)
    assert found[0].above == pytest.approx(0.16, abs=0.03)


def test_chance_makes_few_topics_weak() -> None:
    alarms = sum(
        any(topic.weak for topic in topics_of(lines(dict.fromkeys("abcdefgh", 5.0), seed=seed)))
        for seed in range(60)
    )
    assert alarms <= 8


def test_too_few_records_make_no_topic_weak() -> None:
    found = topics_of([*lines({"a": 5.0}), *lines({"b": 9.0}, each=4)])
    assert [topic.weak for topic in found] == [False, False]


def test_records_without_a_topic_or_a_loss_do_not_count() -> None:
    several = [
        {"id": "x", "topic": None, "losses": [9.0]},
        {"id": "y", "topic": "a", "losses": [None]},
    ]
    assert topics_of(several) == []


def domains(power: float, noise: float, seed: int = 0) -> list[list[tuple[int, float]]]:
    draw = random.Random(seed)
    return [
        [(n, level * n**-power * (1 + draw.gauss(0, noise))) for n in (5, 10, 20, 40, 80)]
        for level in (0.9, 0.8, 0.7)
    ]


def test_a_power_law_is_found_whatever_the_domains_levels() -> None:
    found = law(domains(0.1, 0.005))
    assert found is not None
    assert found.power == pytest.approx(0.1, abs=2.5 * found.error)
    assert 0 < found.error < 0.01


def test_no_law_from_few_topics_or_from_equal_counts() -> None:
    assert law([[(5, 0.9), (10, 0.8)]]) is None
    assert law([[(7, 0.9 - at / 100) for at in range(12)]]) is None


def test_how_many_more_records_take_a_topic_to_its_target() -> None:
    share, target = 0.8 * 20**-0.1, 0.8 * 40**-0.1
    fewest, most = more_records(20, share, target, Law(0.1, 0.01)) or (0, 0)
    assert fewest <= 20 <= (most or 0)
    assert (fewest, most) == (17, 25)


def test_where_more_records_may_not_help_at_all_no_number_is_said() -> None:
    assert more_records(20, 0.9, 0.8, Law(0.05, 0.05)) is None
    assert more_records(20, 0.8, 0.9, Law(0.1, 0.01)) is None
    assert more_records(20, 0.9, 0.8, None) is None
    assert more_records(20, 0.9, 0.5, Law(0.02, 0.001)) is None


def test_an_open_end_is_called_one() -> None:
    fewest, most = more_records(20, 0.9, 0.8, Law(0.1, 0.07)) or (0, 0)
    assert fewest > 0
    assert most is None
