"""An agent's record: what it promised against what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import accepted, proposal, run

from meetara_build.rounds.track_record import outcomes, records


def test_a_decision_is_measured_by_the_results_before_and_after_it() -> None:
    [one] = outcomes([accepted("p", 5.0)], [run("a", 1.0, 6.0), run("b", 9.0, 5.7)])
    assert (one.before, one.after, one.helped, one.failed, one.solved) == (
        "a",
        "b",
        True,
        False,
        False,
    )
    assert one.actual == pytest.approx(0.05)
    assert one.loss == pytest.approx(0.05)


def test_nothing_is_measured_before_the_next_other_result() -> None:
    again = run("b", 9.0, 6.0, key="key-a", outcome="restored")
    assert outcomes([accepted("p", 5.0)], [run("a", 1.0, 6.0), again]) == []


def test_a_proposal_that_nobody_accepted_is_not_measured() -> None:
    assert (
        outcomes([proposal("p"), proposal("q", (2.0, "person", "rejected"))], [run("a", 3.0, 6.0)])
        == []
    )


def test_decisions_that_one_build_measures_share_the_gain_as_they_promised() -> None:
    messages = [
        accepted("p", 5.0, expected_gain=0.03),
        accepted("q", 5.0, key="lora.rank", expected_gain=0.01),
    ]
    first, second = outcomes(messages, [run("a", 1.0, 6.0), run("b", 9.0, 5.4)])
    assert (first.actual, second.actual) == (pytest.approx(0.075), pytest.approx(0.025))
    assert first.loss == second.loss == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("figure", "stage", "field", "actual"),
    [
        ("seconds", "adapter", "seconds", 0.5),
        ("memory", "adapter", "peak_mb", 0.5),
        ("size", "gguf", "size", 0.5),
    ],
)
def test_each_figure_has_its_stage(figure: str, stage: str, field: str, actual: float) -> None:
    runs = [
        run("a", 1.0, 6.0, stage=stage, **{field: 8}),
        run("b", 9.0, 6.0, stage=stage, **{field: 4}),
    ]
    [one] = outcomes([accepted("p", 5.0, figure=figure)], runs)
    assert one.actual == pytest.approx(actual)


def test_what_was_restored_says_nothing_of_time() -> None:
    runs = [run("a", 1.0, 6.0), run("b", 9.0, 6.0, outcome="restored", seconds=0.1)]
    assert outcomes([accepted("p", 5.0, figure="seconds")], runs) == []


def test_a_remedy_is_measured_by_the_failure_it_ends() -> None:
    [one] = outcomes([accepted("p", 5.0)], [run("a", 1.0), run("b", 9.0, 5.0)])
    assert (one.solved, one.helped, one.actual) == (True, True, None)


def test_a_remedy_may_end_the_failure_of_a_later_step() -> None:
    runs = [
        run("a", 1.0, 6.0),
        run("b", 2.0, stage="gguf"),
        run("c", 8.0, 6.1),
        run("d", 9.0, stage="gguf", outcome="built"),
        run("e", 9.5, stage="package"),
    ]
    [one] = outcomes([accepted("p", 5.0)], runs)
    assert (one.solved, one.helped, one.failed) == (True, True, False)
    [one] = outcomes([accepted("p", 5.0)], [*runs[:3], run("d", 9.0, stage="gguf")])
    assert (one.solved, one.helped, one.failed) == (False, False, False)


def test_a_priority_is_not_measured_by_its_domain_s_own_runs() -> None:
    runs = [run("a", 1.0, 6.0), run("b", 9.0, 6.0, seconds=99.0)]
    assert outcomes([accepted("p", 5.0, key="priority", figure="seconds")], runs) == []


def test_a_decision_after_which_a_build_fails_has_failed_unless_it_failed_before() -> None:
    [one] = outcomes([accepted("p", 5.0)], [run("a", 1.0, 6.0), run("b", 9.0)])
    assert (one.failed, one.helped) == (True, False)
    [one] = outcomes([accepted("p", 5.0)], [run("a", 1.0), run("b", 9.0)])
    assert (one.failed, one.solved, one.helped) == (False, False, False)


def test_a_record_counts_what_became_of_proposals() -> None:
    messages = [
        accepted("p", 5.0, expected_gain=0.1),
        proposal("q", (2.0, "person", "rejected")),
        proposal(
            "r", (12.0, "policy", "accepted"), (20.0, "measured", "rejected"), expected_gain=0.1
        ),
        proposal("s"),
        proposal("t", agent="other"),
    ]
    runs = [run("a", 1.0, 6.0), run("b", 9.0, 5.7), run("c", 15.0, 5.8)]
    found = records(messages, outcomes(messages, runs))
    assert sorted(found) == ["other", "tuner"]
    one = found["tuner"]
    assert (one.proposed, one.accepted, one.rejected, one.withdrawn) == (4, 2, 1, 1)
    assert (one.measured, one.helped) == (2, 1)
    assert one.reliability == 2 / 4
    assert one.expected_gain == pytest.approx(0.1)
    assert one.actual_gain == pytest.approx((0.05 - 0.1 / 5.7) / 2)
    assert one.calibration < 1


def test_an_agent_of_whom_nothing_is_known_helps_as_often_as_not() -> None:
    one = records([proposal("p")], [])["tuner"]
    assert (one.reliability, one.calibration) == (0.5, 1.0)


def test_of_several_that_one_build_measures_each_counts_for_its_part() -> None:
    messages = [accepted(name, 5.0, expected_gain=0.01) for name in "pqrs"]
    found = outcomes(messages, [run("a", 1.0, 6.0), run("b", 9.0, 5.4)])
    one = records(messages, found)["tuner"]
    assert (one.measured, one.helped) == (4, 4)
    assert one.reliability == 2 / 3, "as if it had been one"


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(1.0, 10.0)), min_size=1, max_size=8))
def test_shares_add_up_to_what_was_measured(promises: list[tuple[float, float]]) -> None:
    messages = [
        accepted(f"p{number}", 5.0, expected_gain=gain) for number, (gain, _) in enumerate(promises)
    ]
    after = promises[0][1]
    found = outcomes(messages, [run("a", 1.0, 6.0), run("b", 9.0, after)])
    assert sum(one.actual or 0.0 for one in found) == pytest.approx((6.0 - after) / 6.0)
