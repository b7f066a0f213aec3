"""tuner: one new point of the search space a round for each domain, told what its builds have
measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from contexts import domain, load, training

from meetara_build.agents import Context, Domain, Proposal, Run

tuner = load("tuner")
SPACE = {
    "training.learning_rate": {"low": 3e-5, "high": 2e-2, "log": True},
    "training.batch_tokens": {"choices": [256, 512, 1024, 2048]},
    "training.warmup_share": {"low": 0.0, "high": 0.3},
    "lora.rank": {"choices": [4, 8, 16, 32]},
    "lora.dropout": {"choices": [0.0, 0.05, 0.1]},
}
POLICY = {"may_change": ["training", "lora"], "at_most_times": 8}
RATE = "training.learning_rate"


def context(domains: list[Domain], runs: list[Run], **fields: Any) -> Context:
    given: dict[str, Any] = {"tuning": {"space": SPACE}, "policy": POLICY, **fields}
    return Context({one.name: one for one in domains}, runs, **given)


def proposals(made: Context) -> list[Proposal]:
    return list(tuner.propose(made))


def several(name: str, losses: list[float], **changes: Any) -> list[Run]:
    """Trainings of a domain, each with another learning rate."""
    return [
        training(name, loss, {RATE: 2e-4 * (1 + place / 4), **changes})
        for place, loss in enumerate(losses)
    ]


def test_a_domain_that_was_never_trained_gives_it_nothing_to_go_by(tmp_path: Path) -> None:
    assert proposals(context([domain(tmp_path, "sleep")], [])) == []


def test_it_proposes_one_point_of_few_keys_within_space_and_policy(tmp_path: Path) -> None:
    made = proposals(context([domain(tmp_path, "sleep")], several("sleep", [5.0, 4.9, 4.8])))
    assert 1 <= len(made) <= 3
    assert {one.domain for one in made} == {"sleep"}
    for one in made:
        given: Any = SPACE[one.key]
        assert (
            one.value in given["choices"]
            if "choices" in given
            else given["low"] <= one.value <= given["high"]
        )
        if one.key == RATE:
            assert 2e-4 / 8 <= one.value <= 2e-4 * 8
            assert one.value == float(f"{one.value:.3g}")
    assert (
        len({(one.reason, tuple(one.evidence), one.expected_gain, one.confidence) for one in made})
        == 1
    )
    if len(made) > 1:
        assert all(one.key in made[0].reason for one in made)


def test_the_same_context_gives_the_same_proposals_and_one_more_run_others(tmp_path: Path) -> None:
    domains = [domain(tmp_path, "sleep")]
    runs = several("sleep", [5.0, 4.9, 4.8])
    assert proposals(context(domains, runs)) == proposals(context(domains, runs))
    more = [*runs, training("sleep", 4.95, {RATE: 1e-3})]
    assert [one.value for one in proposals(context(domains, more))] != [
        one.value for one in proposals(context(domains, runs))
    ]


def test_a_refused_point_is_not_proposed_for_ever(tmp_path: Path) -> None:
    domains, runs = [domain(tmp_path, "sleep")], several("sleep", [5.0, 4.9, 4.8])
    refused = {
        "about": "proposal",
        "sender": "tuner",
        "domain": "sleep",
        "answers": [{"answer": "rejected"}],
    }
    again = proposals(context(domains, runs, messages=[refused]))
    assert [(one.key, one.value) for one in again] != [
        (one.key, one.value) for one in proposals(context(domains, runs))
    ]


def test_locked_keys_and_those_agents_may_not_change_are_left_alone(tmp_path: Path) -> None:
    domains = [domain(tmp_path, "sleep", locked=["lora", RATE])]
    runs = several("sleep", [5.0, 4.9, 4.8])
    keys = {
        one.key
        for seed in range(4)
        for one in proposals(context(domains, runs + several("sleep", [5.0] * seed)))
    }
    assert keys
    assert keys <= {"training.batch_tokens", "training.warmup_share"}
    assert (
        proposals(context(domains, runs, policy={"may_change": ["gguf"], "at_most_times": 8})) == []
    )


def test_what_did_best_on_a_similar_domain_is_tried_before_the_sampler_s_own(
    tmp_path: Path,
) -> None:
    near = domain(tmp_path, "fitness", "run jump sleep rest train muscle")
    far = domain(tmp_path, "music", "violin chord scale tempo")
    own = domain(tmp_path, "sleep", "sleep rest bed night muscle")
    runs = [
        training("fitness", 5.0),
        training("fitness", 4.5, {RATE: 1e-3, "lora.rank": 8}),
        training("music", 5.0),
        training("music", 4.9, {RATE: 4e-4}),
        training("sleep", 5.0),
    ]
    made = [one for one in proposals(context([near, far, own], runs)) if one.domain == "sleep"]
    assert {(one.key, one.value) for one in made} == {(RATE, 1e-3), ("lora.rank", 8)}
    assert "did best on fitness" in made[0].reason
    assert runs[1].id in made[0].evidence[0]
    assert 0 < made[0].expected_gain < 0.1
    tried = [*runs, training("sleep", 5.1, {RATE: 1e-3, "lora.rank": 8})]
    then = [one for one in proposals(context([near, far, own], tried)) if one.domain == "sleep"]
    assert {(one.key, one.value) for one in then} == {(RATE, 4e-4)}
    assert "did best on music" in then[0].reason


def test_a_training_that_still_gained_much_at_its_end_gets_a_larger_adapter(tmp_path: Path) -> None:
    def made(fall: float, **config: Any) -> list[Proposal]:
        own, runs = domain(tmp_path, "sleep", config=config), [training("sleep", 5.0, config)]
        curve = [
            (step, loss, loss, 1e-3) for step in range(1, 7) for loss in [5 * (1 + fall * 6 / step)]
        ]
        own.folder.joinpath("adapter").mkdir(parents=True, exist_ok=True)
        own.folder.joinpath("adapter/training.json").write_text(json.dumps({"curve": curve}))
        ranges = {**SPACE, "lora.alpha": {"low": 8, "high": 64}}
        return [
            one
            for one in proposals(context([own], runs, tuning={"space": ranges}))
            if "fits" in one.reason
        ]

    assert {(one.key, one.value) for one in made(0.02)} == {("lora.rank", 32), ("lora.alpha", 64)}
    assert made(0.01) == []
    assert made(0.02, **{"lora.rank": 32}) == [], "64 is beyond the space"


def test_nothing_is_searched_by_a_few_validation_records(tmp_path: Path) -> None:
    few = [
        training("sleep", loss, {RATE: rate}, metrics={"validation_records": 5})
        for loss, rate in ((5, 2e-4), (4.9, 3e-4))
    ]
    assert proposals(context([domain(tmp_path, "sleep")], few)) == []


def test_domains_on_another_base_lend_nothing(tmp_path: Path) -> None:
    other = domain(tmp_path, "fitness", "sleep rest", {"base": "llama"})
    own = domain(tmp_path, "sleep", "sleep rest")
    runs = [
        training("fitness", 5.0),
        training("fitness", 4.0, {RATE: 1e-3}),
        *several("sleep", [5.0, 4.9]),
    ]
    made = [one for one in proposals(context([other, own], runs)) if one.domain == "sleep"]
    assert all("next point of a search" in one.reason for one in made)


def test_runs_on_other_data_or_with_other_fixed_keys_are_not_compared(tmp_path: Path) -> None:
    own = domain(tmp_path, "sleep")
    older = training("sleep", 1.0, {RATE: 1e-4}, inputs={"dataset": "older"})
    longer = training("sleep", 2.0, {"training.epochs": 9})
    now = training("sleep", 5.0)
    assert [one.run for one in tuner.pasts(context([own], [older, longer, now]), own)] == [now.id]


def test_it_promises_little_and_is_unsure_until_points_have_helped(tmp_path: Path) -> None:
    domains = [domain(tmp_path, "sleep")]
    first = proposals(context(domains, [training("sleep", 5.0)]))
    assert first[0].confidence == pytest.approx(0.1)
    assert sum(one.expected_gain for one in first) == pytest.approx(tuner.PRIOR_GAIN, rel=0.01), (
        "of all its keys"
    )
    helped = proposals(context(domains, several("sleep", [5.0, 4.8, 4.6, 4.4])))
    failed = proposals(context(domains, several("sleep", [5.0, 5.1, 5.2, 5.3])))
    assert helped[0].confidence > 0.5 > failed[0].confidence
    gains = [sum(one.expected_gain for one in point) for point in (helped, first, failed)]
    assert 0.05 > gains[0] > gains[1] > gains[2] > 0


def test_told_enough_it_finds_the_region_where_the_loss_is_low(tmp_path: Path) -> None:
    rates = [3e-5, 6e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 1.5e-3, 3e-3, 6e-3, 1.2e-2, 2e-2]
    runs = [
        training("sleep", 4.0 + abs(place - 7) / 10, {RATE: rate})
        for place, rate in enumerate(rates)
    ]
    here = domain(tmp_path, "sleep", config={RATE: 5e-4})
    asked = [
        one.value
        for extra in range(12)
        for one in proposals(context([here], runs + [training("sleep", 4.3, {RATE: 2e-4})] * extra))
        if one.key == RATE
    ]
    assert asked
    assert sum(5e-4 < value < 6e-3 for value in asked) > len(asked) / 2


def test_which_keys_matter_is_said_of_domains_that_were_trained_often_enough(
    tmp_path: Path,
) -> None:
    here = domain(tmp_path, "sleep")
    runs = [
        training(
            "sleep",
            4.0 + place / 10,
            {RATE: 1e-4 * 1.5**place, "lora.rank": [4, 8, 16, 32][place % 4]},
        )
        for place in range(12)
    ]
    (line,) = list(tuner.insights(context([here], runs)))
    assert line.startswith(
        "sleep: of the differences in validation loss between settings, training.learning_rate "
    )
    assert list(tuner.insights(context([here], runs[:5]))) == []
