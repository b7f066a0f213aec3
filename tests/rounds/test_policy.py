"""What agents may change: refused with the reason, or allowed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from told import accepted, proposal, run

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Context, Domain
from meetara_build.errors import ConfigError
from meetara_build.rounds.policy import ACCEPT, ASK, NEVER, refusal, stance

POLICY = {
    "policy": {"default": "ask", "llm_advisor": "never", "tuner": "accept"},
    "may_change": ["training", "lora", "priority"],
    "at_most_times": 4.0,
    "rest_builds": 1,
}
CONFIG = {
    "training.epochs": 4,
    "training.learning_rate": 1e-3,
    "training.joint": [],
    "training.max_steps": None,
    "lora.rank": 8,
    "seed": 1,
}
DOMAIN = Domain(
    "nutrition",
    "healthcare",
    "",
    [],
    ["en"],
    CONFIG,
    {},
    {},
    ["lora.rank", "training.warmup"],
    [],
    Path(),
    [],
    {},
)
CONTEXT = Context({"nutrition": DOMAIN}, policy=POLICY)


def refused(
    key: str,
    value: Any,
    context: Context = CONTEXT,
    *,
    agent: str = "tuner",
    domain: str = "nutrition",
) -> Any:
    return refusal(context, agent, "id", Proposal(domain, key, value, "it helps"), lambda _: None)


@pytest.mark.parametrize(
    ("agent", "expected"), [("tuner", ACCEPT), ("anyone", ASK), ("llm_advisor", NEVER)]
)
def test_each_agent_has_its_policy_and_the_default_is_for_the_rest(
    agent: str, expected: str
) -> None:
    assert stance(POLICY, agent) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", 8),
        ("training.epochs", 1),
        ("training.joint", ["legal"]),
        ("training.max_steps", 100000),
    ],
)
def test_what_policy_allows_is_not_refused(key: str, value: Any) -> None:
    assert refused(key, value) is None


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("seed", 2, "'seed' is not among agents.may_change"),
        ("trainings", 2, "'trainings' is not among"),
        ("lora.rank", 4, "'lora.rank' is locked"),
        ("training.epochs", 4, "it is so already"),
        ("training.epochs", 17, "from 4 to 17 is more than agents.at_most_times (4)"),
        ("training.learning_rate", 2e-4, "from 0.001 to 0.0002 is more than"),
    ],
)
def test_what_it_does_not_is_refused_with_the_reason(key: str, value: Any, why: str) -> None:
    assert why in refused(key, value)


def test_an_agent_that_is_shut_out_and_a_domain_that_is_not_there_are_refused() -> None:
    assert "never takes what llm_advisor proposes" in refused(
        "training.epochs", 5, agent="llm_advisor"
    )
    assert "no domain 'nutritoin'" in refused("training.epochs", 5, domain="nutritoin")


def test_what_the_configuration_refuses_is_refused_in_its_words() -> None:
    def attempt(_: Proposal) -> None:
        raise ConfigError(
            "conf/overlay/nutrition.yaml: training.epochs: should be greater than 0\nand more"
        )

    said = refusal(
        CONTEXT, "tuner", "id", Proposal("nutrition", "training.epochs", 8, "?"), attempt
    )
    assert said == "conf/overlay/nutrition.yaml: training.epochs: should be greater than 0"


def test_what_was_rejected_or_taken_back_is_not_taken_again() -> None:
    rejected = replace(CONTEXT, messages=[proposal("id", (2.0, "person", "rejected"))])
    assert refused("training.epochs", 8, rejected) == "it was rejected before"
    taken = replace(CONTEXT, messages=[accepted("id")])
    assert "someone has taken it back since" in refused("training.epochs", 8, taken)


def test_what_was_taken_back_with_others_may_be_tried_again_alone() -> None:
    answers = [(2.0, "policy", "accepted"), (9.0, "measured", "noted")]
    context = replace(CONTEXT, messages=[proposal("id", *answers)], runs=[run("a", 3.0, 5.0)])
    assert refused("training.epochs", 8, context) is None


def test_an_agent_lets_a_build_pass_before_it_changes_a_key_again() -> None:
    context = replace(CONTEXT, messages=[accepted("other", 5.0, value=6)])
    assert "tuner changed it 0 builds ago" in refused("training.epochs", 8, context)
    assert refused("training.epochs", 8, context, agent="another") is None
    assert refused("training.epochs", 8, replace(context, runs=[run("a", 6.0, 5.0)])) is None


def test_a_topic_that_no_record_has_is_refused_once_the_records_are_known(tmp_path: Path) -> None:
    domain = replace(DOMAIN, folder=tmp_path)
    context = Context({"nutrition": domain}, policy=POLICY)
    assert refused("training.topic_weights", {"a\nb: c": 3}, context) is None
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.jsonl").write_text('{"topic": "vitamins"}\n{"topic": null}\n')
    assert refused("training.topic_weights", {"vitamins": 3}, context) is None
    assert refused("training.topic_weights", {"vitamins": 3, "a\nb: c": 3}, context) == (
        r"no record of nutrition has the topic 'a\nb: c'"
    )
