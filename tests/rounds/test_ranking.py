"""Proposals for the same key: one wins, whatever the order in which agents are asked, and all can
see why."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meetara_build.agents.proposal import Proposal
from meetara_build.rounds.ranking import LATER, OUTVOTED, REFUSED, WINS, Verdict, settle, worth
from meetara_build.rounds.track_record import Record


def proposal(
    key: str = "training.epochs", gain: float = 0.02, confidence: float = 0.5, **more: object
) -> Proposal:
    return Proposal(
        "nutrition", key, more.pop("value", 4), "it helps", (), gain, confidence, **more
    )  # type: ignore[arg-type]


def verdict(
    id: str, agent: str, value: float, key: str = "training.epochs", **more: object
) -> Verdict:
    return Verdict(id, agent, proposal(key, value=id), WINS, "", worth=value, **more)  # type: ignore[arg-type]


def test_the_one_that_is_worth_most_wins_and_the_others_are_told_why() -> None:
    found = settle(
        [verdict("a", "one", 0.2), verdict("b", "two", 0.7)],
        {"two": Record(measured=4, helped=3, parts=4, helped_parts=3)},
        4,
    )
    assert [(one.id, one.status) for one in found] == [("b", WINS), ("a", OUTVOTED)]
    assert "3 of 4 of its decisions helped, against one" in found[0].why
    assert found[1].why == "two's is worth 0.70, this 0.20"


def test_what_is_refused_wins_nothing() -> None:
    found = settle(
        [replace(verdict("a", "one", 9.0), status=REFUSED, why="locked"), verdict("b", "two", 0.1)],
        {},
        4,
    )
    assert {one.id: one.status for one in found} == {"a": REFUSED, "b": WINS}
    assert {one.id: one.why for one in found}["a"] == "locked"


def test_a_domain_takes_so_many_decisions_in_a_round_the_best_first() -> None:
    found = settle(
        [verdict(key, "one", value, key) for key, value in (("x", 0.1), ("y", 0.3), ("z", 0.2))],
        {},
        2,
    )
    assert {one.id: one.status for one in found} == {"x": LATER, "y": WINS, "z": WINS}


def test_a_better_record_and_more_confidence_are_worth_more() -> None:
    plain = worth(proposal(), Record(), 1.0, 2.0)
    assert (
        worth(proposal(), Record(measured=8, helped=8, parts=8, helped_parts=8), 1.0, 2.0) > plain
    )
    assert (
        worth(proposal(), Record(measured=8, helped=1, parts=8, helped_parts=1), 1.0, 2.0) < plain
    )
    assert worth(proposal(), Record(calibration=0.3), 1.0, 2.0) < plain
    assert worth(proposal(confidence=0.9), Record(), 1.0, 2.0) > plain


def test_time_is_worth_what_a_percent_may_cost() -> None:
    loss = worth(proposal(gain=0.01), Record(), 10.0, 2.0)
    time = worth(proposal(gain=0.2, figure="seconds"), Record(), 10.0, 2.0)
    assert time == loss  # a fifth of ten minutes is two minutes, and two minutes are a percent


def test_no_promise_is_worth_more_than_half_the_loss() -> None:
    assert worth(proposal(gain=1e18), Record(), 1.0, 2.0) == worth(
        proposal(gain=0.5), Record(), 1.0, 2.0
    )
    assert worth(proposal(gain=-1.0, confidence=7.0), Record(), 1.0, 2.0) == 0.0


VERDICTS = st.lists(
    st.builds(
        verdict,
        st.uuids().map(str),
        st.sampled_from(["one", "two", "three"]),
        st.floats(0, 5),
        st.sampled_from(["training.epochs", "lora.rank", "seed"]),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


@given(VERDICTS, st.randoms(), st.integers(1, 4))
def test_the_order_in_which_agents_are_asked_does_not_matter(verdicts, random, most) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(verdicts)
    random.shuffle(shuffled)
    assert settle(verdicts, {}, most) == settle(shuffled, {}, most)


@given(VERDICTS, st.integers(1, 4))
def test_each_key_has_one_winner_and_nothing_is_lost(verdicts, most) -> None:  # type: ignore[no-untyped-def]
    found = settle(verdicts, {}, most)
    assert sorted(one.id for one in found) == sorted(one.id for one in verdicts)
    winners = [one for one in found if one.status == WINS]
    assert len({one.proposal.key for one in winners}) == len(winners) <= most
    for one in winners:
        assert one.worth == max(
            other.worth for other in verdicts if other.proposal.key == one.proposal.key
        )


def test_where_several_together_made_it_worse_it_is_one_at_a_time() -> None:
    found = settle(
        [verdict("x", "one", 0.1, "x"), verdict("y", "one", 0.3, "y")], {}, 4, {"nutrition"}
    )
    assert {one.id: one.status for one in found} == {"x": LATER, "y": WINS}
    assert "now one at a time" in next(one.why for one in found if one.id == "x")
