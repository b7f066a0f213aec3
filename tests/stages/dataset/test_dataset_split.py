"""The split: by content, stable, never through the middle of a group."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sources import everything, pairs

from meetara_build.errors import DataError
from meetara_build.stages.dataset.split import split

some = settings(max_examples=40, deadline=None)
names = st.integers(0, 10**9).map(lambda n: hashlib.sha256(str(n).encode()).hexdigest()[:16])
ids = st.lists(names, min_size=40, max_size=120, unique=True)
few = st.lists(names, min_size=8, max_size=40, unique=True)


def sides(ids, groups=None, validation=0.1, test=0.2):
    return dict(
        zip(ids, split(ids, groups or list(range(len(ids))), validation, test), strict=True)
    )


@some
@given(ids, ids)
def test_a_further_record_moves_no_other_except_that_a_borrowed_one_returns_to_train(first, more):
    before = sides(first)
    after = sides([*first, *(name for name in more if name not in before)])
    for name in first:
        assert after[name] in (before[name], "train")
    enough = Counter(before.values())
    if enough["test"] > 4 and enough["validation"] > 2:
        assert {name: after[name] for name in first} == before


@some
@given(ids, st.randoms(use_true_random=False))
def test_order_means_nothing(given_ids, random):
    shuffled = list(given_ids)
    random.shuffle(shuffled)
    assert sides(shuffled) == sides(given_ids)


@some
@given(ids, st.data())
def test_a_group_stays_together(given_ids, data):
    groups = data.draw(
        st.lists(st.integers(0, 15), min_size=len(given_ids), max_size=len(given_ids))
    )
    groups[:3] = [0, 1, 2]
    found = split(given_ids, groups, 0.1, 0.2)
    for group in set(groups):
        assert len({side for side, of in zip(found, groups, strict=True) if of == group}) == 1


@some
@given(few, st.data(), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_no_side_is_ever_empty(given_ids, data, validation, test):
    groups = data.draw(
        st.lists(st.integers(0, 30), min_size=len(given_ids), max_size=len(given_ids))
    )
    groups[:3] = [0, 1, 2]
    assert set(split(given_ids, groups, validation, test)) == {"train", "validation", "test"}


@some
@given(ids)
def test_twelve_groups_give_at_least_two_to_validation_and_four_to_test(given_ids):
    found = Counter(sides(given_ids[:12]).values())
    assert found["validation"] >= 2
    assert found["test"] >= 4


def test_shares_are_met_over_many_records():
    found = Counter(
        sides([hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(5000)]).values()
    )
    assert found["validation"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert found["test"] / 5000 == pytest.approx(0.2, abs=0.02)


def test_large_groups_are_held_out_no_more_often_than_small_ones():
    given_ids = [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(5000)]
    found = split(given_ids, [n // 10 for n in range(5000)], 0.1, 0.2)
    assert Counter(found)["test"] / 5000 == pytest.approx(0.2, abs=0.05)


def test_a_share_of_nothing_is_nothing():
    assert "validation" not in sides([f"{n:016x}" for n in range(50)], validation=0.0).values()


def test_seven_records_are_too_few(prepared):
    with pytest.raises(
        DataError, match="7 usable records are too few to train, validate and test: at least 8"
    ):
        prepared(pairs(7))


def test_records_that_are_all_alike_cannot_be_split():
    with pytest.raises(DataError, match="10 usable records are so alike that they form 1 group"):
        split([f"{n:016x}" for n in range(10)], [0] * 10, 0.1, 0.2)


@settings(max_examples=10, deadline=None)
@given(
    st.sets(st.integers(0, 500), min_size=12, max_size=40),
    st.sets(st.integers(0, 60), min_size=1, max_size=12),
)
def test_near_duplicates_in_real_records_stay_on_one_side_and_no_record_is_on_two(numbers, again):
    from meetara_build.stages.dataset.duplicates import distinct
    from meetara_build.stages.dataset.records import Record, content_id

    said = [(pair["prompt"], pair["response"]) for n in sorted(numbers) for pair in pairs(1, n)]
    # The same question with another answer, and the same answer to a question with a word more.
    said += [
        (said[n % len(said)][0], f"{n} {pairs(1, 1000 + n)[0]['response']}") for n in sorted(again)
    ]
    said += [
        (f"{said[n % 12][0]} zebra quilt", f"{said[n % 12][1]} {n} jolly hexagon")
        for n in sorted(again)
    ]
    records = []
    for line, (prompt, response) in enumerate(said):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        records.append(Record(content_id(messages), messages, "en", None, f"a:{line}"))
    found = distinct(records, 0.98, 0.6)
    side = split([record.id for record in found.records], found.groups, 0.1, 0.2)
    held = {}
    for record, of in zip(found.records, side, strict=True):
        asked = record.prompt.removesuffix(" zebra quilt")
        assert held.setdefault(asked, of) == of
    assert len({record.id for record in found.records}) == len(found.records)


def test_the_same_record_is_on_the_same_side_in_every_domain(prepared):
    here = prepared(pairs(60), system_prompt="You know food.")
    there = prepared([*pairs(60, 30), {"prompt": "one more", "response": "of them"}], "other.jsonl")
    side = {
        record.id: side
        for side in ("train", "validation", "test")
        for record in getattr(here, side)
    }
    shared = [
        (side[record.id], name)
        for name in ("train", "validation", "test")
        for record in getattr(there, name)
        if record.id in side
    ]
    assert len(shared) == 30
    assert all(one == other for one, other in shared)
    assert len(everything(here)) == 60
