"""Agents' decisions: read in order, refused where they are wrong, and nothing but overrides in their effect."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from projects import override, read_yaml, small_project, write_yaml

from meetara_build.errors import ConfigError
from meetara_build.overlay import read_overlay
from meetara_build.resolve import Configuration
from meetara_build.schema import Build


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
        decision("training.epochs", 4, evidence=["run 12", "run 15"], expected_gain=0.02, confidence=0.7),
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
        ({"key": "seed", "value": 1, "agent": "tuner"}, "key 'decisions.0.reason' is missing; add it"),
        (decision("seed", 1, confidence=1.5), "decisions.0.confidence: should be less than or equal to 1"),
        (decision("seed", 1, confidense=0.5), "unknown key 'decisions.0.confidense'; did you mean 'confidence'?"),
        (decision("seed", {"a": 1}), "decisions.0.value: should be"),
    ],
)
def test_a_broken_decision_is_refused_with_file_and_line(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
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
    "gguf.lora": st.booleans(),
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
def test_without_its_overlay_a_domain_is_as_it_was(project: Path, decisions: dict[str, Any]) -> None:
    before = Configuration(project).resolve("nutrition")
    resolved(project, decisions)
    assert Configuration(project).resolve("nutrition") == before
