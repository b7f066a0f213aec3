"""Agents' decisions: read in order, refused where they are wrong, and nothing but overrides in
their effect."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from projects import override, read_yaml, small_project, write_yaml

from meetara_build.config.overlay import (
    overlay_path,
    read_overlay,
    remove_decisions,
    write_decisions,
)
from meetara_build.config.resolve import Configuration
from meetara_build.config.schema import Build, Decision
from meetara_build.errors import ConfigError


def decision(key: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": value, "agent": "tuner", "reason": "it was better before", **more}


def write(conf: Path, *decisions: dict[str, Any], domain: str = "nutrition") -> Path:
    path = conf / "overlay" / f"{domain}.yaml"
    write_yaml(path, {"decisions": list(decisions)})
    return path


def test_without_a_file_nothing_is_decided(tmp_path: Path) -> None:
    assert read_overlay(tmp_path, "nutrition") == []


def test_decisions_keep_their_order_and_their_reasons(tmp_path: Path) -> None:
    write(
        tmp_path,
        decision(
            "training.epochs", 4, evidence=["run 12", "run 15"], expected_gain=0.02, confidence=0.7
        ),
        decision("lora.rank", 8),
    )
    first, second = read_overlay(tmp_path, "nutrition")
    assert (first.key, first.value, first.evidence, first.confidence) == (
        "training.epochs",
        4,
        ["run 12", "run 15"],
        0.7,
    )
    assert (second.key, second.agent, second.expected_gain) == ("lora.rank", "tuner", None)


def test_a_key_decided_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, decision("lora.rank", 4), decision("seed", 1), decision("lora.rank", 8))
    with pytest.raises(ConfigError) as fault:
        read_overlay(tmp_path, "nutrition")
    assert str(fault.value) == f"{path}: 'lora.rank' is decided twice; keep one of the decisions"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"key": "seed", "value": 1, "agent": "tuner"},
            "key 'decisions.0.reason' is missing; add it",
        ),
        (
            decision("seed", 1, confidence=1.5),
            "decisions.0.confidence: should be less than or equal to 1",
        ),
        (
            decision("seed", 1, confidense=0.5),
            "unknown key 'decisions.0.confidense'; did you mean 'confidence'?",
        ),
        (decision("seed", datetime.date(2026, 1, 1)), "decisions.0.value: should be"),
    ],
)
def test_a_broken_decision_is_refused_with_file_and_line(
    tmp_path: Path, broken: dict[str, Any], said: str
) -> None:
    path = write(tmp_path, broken)
    with pytest.raises(ConfigError) as fault:
        read_overlay(tmp_path, "nutrition")
    assert str(fault.value).startswith(f"{path}:")
    assert said in str(fault.value)
    assert len(str(fault.value).splitlines()) == 1


def test_a_file_without_decisions_is_refused(tmp_path: Path) -> None:
    write_yaml(tmp_path / "overlay" / "nutrition.yaml", {"training.epochs": 4})
    with pytest.raises(ConfigError, match=r"unknown key 'training\.epochs'; known: decisions"):
        read_overlay(tmp_path, "nutrition")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("overlay") / "project", ["nutrition"])


VALUES = {
    "training.epochs": st.integers(1, 50),
    "training.learning_rate": st.floats(1e-6, 0.5),
    "training.max_steps": st.none() | st.integers(1, 500),
    "lora.rank": st.sampled_from([2, 4, 8, 64]),
    "lora.targets": st.sampled_from(["all-linear", ["q_proj"], ["q_proj", "v_proj"]]),
    "gguf.files": st.sampled_from(["merged", "both"]),
}
DECISIONS = st.fixed_dictionaries({}, optional=VALUES)
SLOW = settings(deadline=None, max_examples=5, phases=[Phase.explicit, Phase.generate])


def resolved(project: Path, decisions: dict[str, Any]) -> Build:
    path = write(project / "conf", *(decision(key, value) for key, value in decisions.items()))
    try:
        return Configuration(project).resolve("nutrition").build
    finally:
        path.unlink()


@SLOW
@given(DECISIONS)
def test_a_decision_does_what_the_same_override_in_the_domain_s_file_does(
    project: Path, decisions: dict[str, Any]
) -> None:
    path = project / "conf" / "domain" / "nutrition.yaml"
    written = read_yaml(path)
    decided = resolved(project, decisions)
    override(project, "nutrition", decisions)
    overridden = Configuration(project).resolve("nutrition").build
    write_yaml(path, written)
    assert decided == overridden


@SLOW
@given(DECISIONS, DECISIONS)
def test_decisions_about_different_keys_do_not_disturb_each_other(
    project: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    both = resolved(project, {**one, **other}).model_dump()
    other_alone = resolved(project, other).model_dump()
    for key in other:
        section, _, name = key.partition(".")
        assert both[section][name] == other_alone[section][name]


@SLOW
@given(DECISIONS)
def test_without_its_overlay_a_domain_is_as_it_was(
    project: Path, decisions: dict[str, Any]
) -> None:
    before = Configuration(project).resolve("nutrition")
    resolved(project, decisions)
    assert Configuration(project).resolve("nutrition") == before


# Written


def decided(key: str, value: Any, **more: Any) -> Decision:
    return Decision(**decision(key, value, **more))


def test_decisions_are_written_as_they_are_read(tmp_path: Path) -> None:
    first, second = (
        decided("lora.rank", 8, expected_gain=0.02),
        decided("training.topic_weights", {"a: b": 2}),
    )
    write_decisions(tmp_path, "nutrition", [first])
    write_decisions(tmp_path, "nutrition", [second])
    assert read_overlay(tmp_path, "nutrition") == [first, second]
    assert overlay_path(tmp_path, "nutrition").read_text().startswith("# What agents decided")


def test_a_new_decision_takes_the_place_of_the_old_one_for_its_key(tmp_path: Path) -> None:
    write_decisions(tmp_path, "nutrition", [decided("lora.rank", 8), decided("seed", 1)])
    write_decisions(tmp_path, "nutrition", [decided("lora.rank", 4)])
    assert [(one.key, one.value) for one in read_overlay(tmp_path, "nutrition")] == [
        ("seed", 1),
        ("lora.rank", 4),
    ]


def test_the_file_goes_with_the_last_decision(tmp_path: Path) -> None:
    write_decisions(tmp_path, "nutrition", [decided("lora.rank", 8)])
    remove_decisions(tmp_path, "nutrition", ["lora.rank"])
    assert not overlay_path(tmp_path, "nutrition").exists()


HAND_WRITTEN = """# mine
decisions:
  # why the rank is what it is
  - key: lora.rank   # small
    value: 8
    agent: anna
    reason: "fits"

  # the seed of the paper
  - {key: seed, value: 3, agent: anna, reason: paper}
"""


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (
            "seed",
            HAND_WRITTEN.replace("  - {key: seed, value: 3, agent: anna, reason: paper}\n", ""),
        ),
        (
            "lora.rank",
            HAND_WRITTEN.replace(
                HAND_WRITTEN[HAND_WRITTEN.index("  - key") : HAND_WRITTEN.index("\n  # the")], ""
            ),
        ),
    ],
)
def test_what_a_person_wrote_between_the_entries_stays(
    tmp_path: Path, gone: str, left: str
) -> None:
    path = overlay_path(tmp_path, "nutrition")
    path.parent.mkdir()
    path.write_text(HAND_WRITTEN)
    remove_decisions(tmp_path, "nutrition", [gone])
    assert path.read_text() == left
    assert len(read_overlay(tmp_path, "nutrition")) == 1
    remove_decisions(tmp_path, "nutrition", ["seed", "lora.rank"])
    assert "# mine" in path.read_text()
    assert read_overlay(tmp_path, "nutrition") == []


def test_a_file_of_another_form_is_written_anew(tmp_path: Path) -> None:
    path = overlay_path(tmp_path, "nutrition")
    path.parent.mkdir()
    path.write_text("decisions: [{key: seed, value: 3, agent: anna, reason: paper}]\n")
    write_decisions(tmp_path, "nutrition", [decided("lora.rank", 8)])
    assert [one.key for one in read_overlay(tmp_path, "nutrition")] == ["seed", "lora.rank"]


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from(["seed", "lora.rank", "training.epochs"]), st.integers(1, 9)
    )
)


@given(STEPS)
def test_any_sequence_of_writing_and_taking_back_is_a_mapping(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str, int]]
) -> None:
    conf, expected = tmp_path_factory.mktemp("conf"), dict[str, int]()
    for add, key, value in steps:
        expected.pop(key, None)
        if add:
            write_decisions(conf, "nutrition", [decided(key, value)])
            expected[key] = value
        else:
            remove_decisions(conf, "nutrition", [key])
        assert [(one.key, one.value) for one in read_overlay(conf, "nutrition")] == list(
            expected.items()
        )


def decide_for(conf: Path, key: str) -> None:
    write_decisions(conf, "nutrition", [Decision(**decision(key, 1))])


def test_of_decisions_that_are_made_at_once_none_is_lost(tmp_path: Path) -> None:
    keys = [f"key{number}" for number in range(12)]
    conf = tmp_path / "conf"
    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(partial(decide_for, conf), keys))
    assert sorted(one.key for one in read_overlay(conf, "nutrition")) == sorted(keys)
    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(lambda key: remove_decisions(conf, "nutrition", [key]), keys[1:]))
    assert [one.key for one in read_overlay(conf, "nutrition")] == keys[:1]


LOOK_LIKE_NUMBERS = ["1234567e89012345", "1e3", "0x1f", "1:30", "a\u2028b", "one\n\n two", "yes"]


@pytest.mark.parametrize("text", LOOK_LIKE_NUMBERS)
def test_a_decision_is_read_back_as_it_was_written_whatever_its_texts_look_like(
    tmp_path: Path, text: str
) -> None:
    """An overlay that its reader refuses stops every command of the project."""
    made = Decision(
        key="data.drop", value=[text, {text: 1e16}], agent="tuner", reason=text, evidence=[text]
    )
    other = Decision(key="lora.rank", value=8, agent="tuner", reason="x")
    write_decisions(tmp_path, "nutrition", [made])
    write_decisions(tmp_path, "nutrition", [other])
    assert read_overlay(tmp_path, "nutrition") == [made, other]
    remove_decisions(tmp_path, "nutrition", ["lora.rank"])
    assert read_overlay(tmp_path, "nutrition") == [made]


def test_a_decision_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    write_decisions(
        tmp_path, "nutrition", [Decision(key="seed", value=1, agent="anna", reason="x")]
    )
    before = overlay_path(tmp_path, "nutrition").read_bytes()
    with pytest.raises(
        ConfigError, match=r"nutrition\.yaml: 'lora\.rank': cannot be written as YAML"
    ):
        write_decisions(
            tmp_path, "nutrition", [Decision(key="lora.rank", value=4, agent="a", reason="\ud800")]
        )
    assert overlay_path(tmp_path, "nutrition").read_bytes() == before
