"""A result far beyond the others': found when it is there, and seldom when it is not."""

import random

import pytest
from told import accepted, run

from meetara_build.rounds.breakthroughs import breakthroughs, compute_modified_z, holds
from meetara_build.rounds.track_record import Outcome, outcomes


def measured(gains: list[float]) -> list[Outcome]:
    """One decision a domain, each with this gain."""
    names = [f"domain_{number}" for number in range(len(gains))]
    messages = [accepted(f"p-{name}", 5.0, domain=name) for name in names]
    runs = [run(f"a-{name}", 1.0, 6.0, domain=name) for name in names]
    runs += [
        run(f"b-{name}", 9.0, 6.0 * (1 - gain), domain=name)
        for name, gain in zip(names, gains, strict=True)
    ]
    return outcomes(messages, runs)


ORDINARY = [0.010, 0.012, 0.008, 0.011, 0.009, 0.013, 0.007, 0.010, 0.012]


def test_a_gain_far_beyond_the_others_is_found_with_what_was_changed() -> None:
    [found] = breakthroughs(measured([*ORDINARY, 0.08]))
    assert (found.domain, found.changes, found.others) == ("domain_9", {"training.epochs": 4}, 9)
    assert (found.before, found.after) == ("a-domain_9", "b-domain_9")
    assert found.score > 3.5
    assert breakthroughs(measured([*ORDINARY, 0.08]), [found.id]) == []


def test_ordinary_gains_are_none_nor_are_few() -> None:
    assert breakthroughs(measured(ORDINARY)) == []
    assert breakthroughs(measured([0.01, 0.01, 0.2])) == []


def test_where_all_are_alike_a_trifle_is_none() -> None:
    assert breakthroughs(measured([0.0] * 9 + [0.004])) == []


def test_false_alarms_are_few() -> None:
    chance = random.Random(3)
    sets = [[chance.gauss(0.01, 0.005) for _ in range(62)] for _ in range(200)]
    alarms = [compute_modified_z(max(gains), sorted(gains)[:-1]) > 3.5 for gains in sets]
    assert (
        sum(alarms) / len(alarms) < 0.1
    )  # of sixty-two domains that have nothing to tell, before any repeat


@pytest.mark.parametrize(
    ("again", "held"), [(5.5, True), (5.74, True), (5.76, False), (6.1, False)]
)
def test_it_holds_if_another_seed_reaches_half_of_it(again: float, held: bool) -> None:
    assert holds(6.0, 5.5, again) is held
