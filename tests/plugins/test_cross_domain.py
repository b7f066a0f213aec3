"""cross_domain: near domains learn together, and what helped most domains is proposed to the
rest."""

from pathlib import Path
from typing import Any

import pytest
from contexts import context, domain, load, training

from meetara_build.agents import Context, Proposal
from meetara_build.toolbox.paired_runs import changes

agent = load("cross_domain")

JOINT = "training.joint"
FOOD, CODE = (
    "bread butter vegetables fruit protein vitamins meals",
    "python function compiler loop variable debugger",
)
WORDS = {
    "nutrition": f"{FOOD} diet",
    "cooking": f"{FOOD} oven",
    "shopping": f"{FOOD} cart",
    "coding": CODE,
    "music": "piano drums",
}


def of(found: list[Proposal], key: str) -> dict[str, Proposal]:
    return {one.domain: one for one in found if one.key == key}


@pytest.fixture
def village(tmp_path: Path) -> Any:
    """Three domains about food and two strangers, each trained alone once; fields of each by
    name."""

    def make(runs: Any = (), **fields: dict[str, Any]) -> Context:
        several = [
            domain(tmp_path, name, text, **fields.get(name, {})) for name, text in WORDS.items()
        ]
        return context(*several, runs=[*(training(name, 5.0) for name in WORDS), *runs])

    return make


def tried(domain: str, gain: float, names: list[str]) -> list[Any]:
    return [training(domain, 5.0), training(domain, 5.0 * (1 - gain), {JOINT: names})]


# Joint training


def test_near_domains_are_to_learn_together_and_strangers_are_not(village: Any) -> None:
    found = of(agent.propose(village()), JOINT)
    assert {name: one.value for name, one in found.items()} == {
        "nutrition": ["cooking", "shopping"],
        "cooking": ["nutrition", "shopping"],
        "shopping": ["cooking", "nutrition"],
    }
    assert found["nutrition"].confidence == 0.5
    assert "nothing of it is measured yet" in found["nutrition"].reason


@pytest.mark.parametrize(("bound", "room"), [(None, True), (300, True), (299, False)])
def test_what_others_bring_must_not_be_taken_from_a_domain_s_own_records(
    tmp_path: Path, bound: int | None, room: bool
) -> None:
    """100 steps over its own records make 300 with two companions of as many."""
    runs = [training(name, 5.0, metrics={"steps": 100, "training_records": 40}) for name in WORDS]
    config = {"training.max_steps": bound}
    several = [domain(tmp_path, name, text, config=config) for name, text in WORDS.items()]
    assert ("nutrition" in of(agent.propose(context(*several, runs=runs)), JOINT)) is room


def test_what_was_never_trained_alone_is_first(tmp_path: Path) -> None:
    several = [domain(tmp_path, name, text) for name, text in WORDS.items()]
    assert not of(agent.propose(context(*several)), JOINT)


def test_what_joint_training_did_so_far_decides_whether_it_goes_on(village: Any) -> None:
    good = [*tried("nutrition", 0.1, ["cooking"]), *tried("shopping", 0.06, ["cooking"])]
    (proposal,) = of(agent.propose(village(good)), JOINT).values()
    assert (proposal.domain, proposal.expected_gain, proposal.confidence) == (
        "cooking",
        pytest.approx(0.08),
        0.75,
    )
    assert "it helped in 2 of 2 domains so far" in proposal.reason
    bad = [*tried("nutrition", -0.1, ["cooking"]), *tried("shopping", 0.01, ["cooking"])]
    assert not of(agent.propose(village(bad)), JOINT)


def test_what_was_tried_is_measured_by_the_core_and_not_proposed_again(village: Any) -> None:
    runs = tried("nutrition", 0.1, ["cooking"])
    back = training("nutrition", 5.0)
    assert "nutrition" not in of(agent.propose(village([*runs, back])), JOINT)
    assert "cooking" not in of(
        agent.propose(village(cooking={"config": {JOINT: ["music"]}})), JOINT
    )
    assert "cooking" not in of(agent.propose(village(cooking={"locked": [JOINT]})), JOINT)


def test_the_similarity_that_companions_need_is_learnt(village: Any) -> None:
    near = [*tried("nutrition", 0.1, ["cooking"]), *tried("shopping", 0.1, ["cooking"])]
    far = [*tried("coding", -0.1, ["music"]), *tried("music", -0.1, ["coding"])]
    runs = [*near, *far]
    seen = village(runs)
    alike = dict(seen.similar("nutrition", 5))
    assert alike["music"] < agent.find_similarity(seen, changes(seen)) <= alike["cooking"]
    assert "Joint training helped 2 of 4 domains that tried it, 0.0% less loss on average" in list(
        agent.insights(seen)
    )


# Universal patterns


def epochs(gains: dict[str, float]) -> list[Any]:
    return [
        run
        for name, gain in gains.items()
        for run in (training(name, 5.0), training(name, 5.0 * (1 - gain), {"training.epochs": 6}))
    ]


def test_what_helped_most_domains_is_proposed_to_those_that_have_not_tried(village: Any) -> None:
    seen = village(epochs({"nutrition": 0.1, "coding": 0.2, "music": 0.06}))
    found = of(agent.propose(seen), "training.epochs")
    assert set(found) == {"cooking", "shopping"}
    assert (found["cooking"].value, found["cooking"].expected_gain) == (6, pytest.approx(0.12))
    assert "helped in 3 of 3 domains" in found["cooking"].reason
    assert "Universal: training.epochs 3 → 6 helped in 3 of 3 domains" in list(agent.insights(seen))


def test_not_what_two_domains_tried_nor_what_failed_as_often(village: Any) -> None:
    assert not of(
        agent.propose(village(epochs({"nutrition": 0.1, "coding": 0.2}))), "training.epochs"
    )
    mixed = {"nutrition": 0.3, "coding": 0.2, "music": -0.01, "cooking": -0.01}
    assert not of(agent.propose(village(epochs(mixed))), "training.epochs")


def test_the_way_back_is_a_pattern_too(village: Any) -> None:
    """Fewer steps were tried last and made things worse: whoever has fewer is to have more."""
    seen = village(
        epochs({"nutrition": -0.1, "coding": -0.2, "music": -0.06}),
        cooking={"config": {"training.epochs": 6}},
    )
    found = of(agent.propose(seen), "training.epochs")
    assert {name: one.value for name, one in found.items()} == {"cooking": 3}


def test_the_shape_of_an_adapter_that_begins_from_another_stays(village: Any) -> None:
    runs = [
        run
        for name in ("nutrition", "coding", "music")
        for run in (training(name, 5.0), training(name, 4.5, {"lora.rank": 32}))
    ]
    pinned = {"config": {"training.warm_start": "nutrition@" + "a" * 64}}
    assert set(of(agent.propose(village(runs, cooking=pinned)), "lora.rank")) == {"shopping"}


# Order


def test_the_most_useful_teachers_come_first(village: Any) -> None:
    order = agent.teachers(village())
    assert set(order[:3]) == {"nutrition", "cooking", "shopping"}
    assert next(iter(agent.insights(village()))).startswith("Most useful teachers first: ")


def test_the_same_context_gives_the_same_proposals(village: Any) -> None:
    runs = epochs({"nutrition": 0.1, "coding": 0.2, "music": 0.06})
    assert agent.propose(village(runs)) == agent.propose(village(runs)) != []
