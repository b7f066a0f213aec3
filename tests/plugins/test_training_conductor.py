"""training_conductor: priorities, remedies, and what it says of a build."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from contexts import context, domain, load, training

from meetara_build import errors
from meetara_build.agents import Context, Domain, Proposal, Run

agent = load("training_conductor")

MORE = {"priority": 0, "domain.quants": ["F16", "Q8_0", "Q4_K_M"]}
NOT_FINITE = "training-not-finite"
MORE |= {"evaluation.max_kl.Q8_0": 0.02, "evaluation.max_kl.Q4_K_M": 0.25}


def one(
    folder: Path, name: str = "law", config: dict[str, Any] | None = None, **fields: Any
) -> Domain:
    """A domain, with the keys that this agent knows."""
    return domain(folder, name, config={**MORE, **(config or {})}, **fields)


def failed(
    code: str,
    stage: str = "adapter",
    config: dict[str, Any] | None = None,
    name: str = "law",
    error: str = "whatever the words are",
) -> Run:
    """A run that failed."""
    return dataclasses.replace(
        training(name, 0.0, config),
        stage=stage,
        outcome="failed",
        error=error,
        code=code,
        metrics={},
    )


def done(name: str, stage: str, seconds: float, **fields: Any) -> Run:
    """A run that went through."""
    return dataclasses.replace(
        training(name, 2.0), stage=stage, seconds=seconds, recipe={"threads": 1}, **fields
    )


def proposals(seen: Context) -> list[Proposal]:
    """What it proposes; the same when asked again."""
    found = list(agent.propose(seen))
    assert list(agent.propose(seen)) == found
    return found


def changed(seen: Context) -> dict[str, Any]:
    """The keys it would change, and to what."""
    return {found.key: found.value for found in proposals(seen)}


def solved(
    code: str,
    *changes: tuple[str, Any, Any],
    name: str = "sleep",
    stage: str = "adapter",
    message: str = "in words",
) -> dict[str, Any]:
    """An error that was solved, as the knowledge base has it; each change is a key and its values
    before and after."""
    return {
        "domain": name,
        "stage": stage,
        "message": message,
        "code": code,
        "signature": "",
        "solution": "in words",
        "changes": [dict(zip(("key", "before", "after"), one, strict=True)) for one in changes],
        "solved": "2026-11-25",
    }


def knowing(*errors: dict[str, Any]) -> dict[str, Any]:
    """The context's sections with these errors."""
    return {"knowledge_base": {"error_solutions": list(errors)}}


# Remedies.


MEMORY = {"training.micro_batch_tokens": 512, "training.observers": ["gpu_optimizer"]}


@pytest.mark.parametrize(
    ("code", "stage", "expected"),
    [
        ("training-not-finite", "adapter", {"training.learning_rate": 1e-4}),
        ("training-diverged", "adapter", {"training.learning_rate": 1e-4}),
        ("training-memory", "adapter", MEMORY),
        ("build-memory", "adapter", MEMORY),
        ("training-unmoved", "adapter", {"training.learning_rate": 8e-4}),
        ("training-targets", "adapter", {"lora.targets": "all-linear"}),
        ("proof-not-finite", "gguf", {"training.learning_rate": 1e-4}),
        ("gate-loss", "package", {"training.epochs": 6}),
        ("proof-no-effect", "merge", {"training.epochs": 6}),
    ],
)
def test_a_known_error_has_a_remedy(
    tmp_path: Path, code: str, stage: str, expected: dict[str, Any]
) -> None:
    config = {"lora.targets": ["x"]} if code == "training-targets" else {}
    run = failed(code, stage, config)
    seen = context(one(tmp_path, config=config), runs=[run])
    assert changed(seen) == expected
    for found in proposals(seen):
        assert found.evidence[0].startswith(f"run {run.id}: ")
        assert 0 < found.confidence < 1


def test_every_code_with_a_remedy_is_an_error_s() -> None:
    known = {kind.code for kind in vars(errors).values() if hasattr(kind, "code")}
    assert {code for remedy in agent.REMEDIES for code in remedy.codes} <= known


@pytest.mark.parametrize("far", [0.41, None])
def test_a_type_too_far_from_f16_gives_way_to_the_next_larger(
    tmp_path: Path, far: float | None
) -> None:
    measured = done("law", "evaluate", 1.0, metrics={"kl": {"Q8_0": 0.01, "Q4_K_M": far}})
    seen = context(one(tmp_path), runs=[measured, failed("gate-quant", "package")])
    assert changed(seen) == {"domain.quants": ["F16", "Q8_0", "Q5_K_M"]}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"validation_loss_after": 4.0}, {"training.epochs": 6}),
        ({"validation_loss_after": 7.0}, {"training.learning_rate": 1e-4}),
        ({"validation_loss_after": 4.0, "stopped_early": True}, {"training.learning_rate": 1e-4}),
    ],
)
def test_a_training_that_made_things_worse_is_not_made_longer(
    tmp_path: Path, metrics: dict[str, Any], expected: dict[str, Any]
) -> None:
    trained = training("law", 4.0, metrics=metrics)
    missed = failed("gate-loss", "package")
    assert changed(context(one(tmp_path), runs=[trained, missed])) == expected


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("training-too-long", "data.max_tokens"),
        ("artifact-unwritable", "make room"),
        ("unexpected", "the same recipe would fail again"),
    ],
)
def test_what_no_agent_can_change_is_an_insight(tmp_path: Path, code: str, advice: str) -> None:
    seen = context(one(tmp_path), runs=[failed(code)])
    assert proposals(seen) == []
    (line,) = [line for line in agent.insights(seen) if line.startswith("law/adapter failed")]
    assert advice in line


def test_nothing_is_changed_once_the_step_went_through(tmp_path: Path) -> None:
    assert proposals(context(one(tmp_path), runs=[failed(NOT_FINITE), training("law", 2.0)])) == []


def test_a_remedy_that_waits_for_its_build_is_not_taken_twice(tmp_path: Path) -> None:
    run = failed(NOT_FINITE)
    assert (
        changed(context(one(tmp_path, config={"training.learning_rate": 1e-4}), runs=[run])) == {}
    )


def test_the_second_failure_in_a_row_changes_more(tmp_path: Path) -> None:
    runs = [failed(NOT_FINITE), failed(NOT_FINITE, config={"training.learning_rate": 1e-4})]
    assert changed(context(one(tmp_path, config={"training.learning_rate": 1e-4}), runs=runs)) == {
        "training.learning_rate": 2.5e-5,
        "training.warmup_share": 0.2,
        "training.clip_norm": 0.5,
    }


@pytest.mark.parametrize("locked", ["training.learning_rate", "training"])
def test_nothing_is_proposed_for_what_is_locked(tmp_path: Path, locked: str) -> None:
    assert proposals(context(one(tmp_path, locked=[locked]), runs=[failed(NOT_FINITE)])) == []


def test_a_micro_batch_that_is_small_already_is_not_halved(tmp_path: Path) -> None:
    config = {"training.micro_batch_tokens": 64, "training.observers": ["gpu_optimizer"]}
    seen = context(one(tmp_path, config=config), runs=[failed("build-memory", config=config)])
    assert proposals(seen) == []
    assert any("a machine with more memory" in line for line in agent.insights(seen))


def test_what_solved_an_error_elsewhere_is_proposed_in_proportion(tmp_path: Path) -> None:
    seen = context(
        one(tmp_path),
        runs=[failed("training", error="law: odd thing at step 9")],
        sections=knowing(
            solved(
                "training",
                ("lora.alpha", 64, 32),
                ("seed", 1, 2),
                message="sleep: odd thing at step 4",
            ),
            solved(
                "training",
                ("lora.alpha", 32, 16),
                name="music",
                message="music: odd thing at step 1",
            ),
            solved("training", ("training.epochs", 3, 1), message="another thing"),
        ),
    )
    assert changed(seen) == {"lora.alpha": 16}


def test_what_solved_a_gate_s_miss_in_words_is_taken_as_it_is(tmp_path: Path) -> None:
    seen = context(
        one(tmp_path, config={"lora.dora": True}),
        runs=[failed("training", config={"lora.dora": True}, error="law: odd")],
        sections=knowing(solved("training", ("lora.dora", True, False), message="sleep: odd")),
    )
    assert changed(seen) == {"lora.dora": False}


def test_confidence_follows_how_a_remedy_fared(tmp_path: Path) -> None:
    def confidence(**fields: Any) -> float:
        return proposals(context(one(tmp_path), one(tmp_path, "sleep"), **fields))[0].confidence

    run, helped = failed(NOT_FINITE), solved(NOT_FINITE, (agent.RATE, 0.002, 0.001))
    again = [
        failed(NOT_FINITE, config={"training.learning_rate": rate}, name="sleep")
        for rate in (4e-4, 2e-4, 1e-4, 5e-5)
    ]
    unknown = confidence(runs=[run])
    assert confidence(runs=[run], sections=knowing(helped, helped)) > unknown
    assert confidence(runs=[run, *again, training("sleep", 2.0)]) < unknown


# Priorities.


def built(folder: Path, seconds: dict[str, float], **config: Any) -> tuple[list[Domain], list[Run]]:
    """Domains whose trainings took so long, and all else a second."""
    domains = [one(folder, name, config=config.get(name)) for name in seconds]
    stages = ("dataset", "merge", "gguf", "evaluate", "package")
    runs = [done(name, stage, 0.1) for name in seconds for stage in stages]
    return domains, runs + [done(name, "adapter", took) for name, took in seconds.items()]


def test_the_longest_are_built_first_where_that_is_sooner(tmp_path: Path) -> None:
    domains, runs = built(tmp_path, {"a": 10, "b": 10, "c": 10, "d": 10, "z": 40})
    (found,) = proposals(context(*domains, runs=runs, slots=2))
    assert (found.domain, found.key, found.value, found.figure) == ("z", "priority", 1, "seconds")
    assert 0.1 < found.expected_gain < 0.4


@pytest.mark.parametrize("slots", [1, 5])
def test_nothing_is_gained_by_an_order_on_one_slot_or_one_for_each(
    tmp_path: Path, slots: int
) -> None:
    domains, runs = built(tmp_path, {"a": 10, "b": 10, "c": 10, "d": 10, "z": 40})
    assert proposals(context(*domains, runs=runs, slots=slots)) == []


def test_an_order_that_is_good_enough_stays(tmp_path: Path) -> None:
    domains, runs = built(tmp_path, {"a": 10, "b": 10, "c": 10, "z": 40}, z={"priority": 7})
    assert proposals(context(*domains, runs=runs, slots=2)) == []


def test_what_a_person_wants_first_stays_first(tmp_path: Path) -> None:
    domains, runs = built(
        tmp_path, {"a": 10, "b": 10, "c": 10, "d": 10, "z": 40}, a={"priority": 100}
    )
    assert [found.domain for found in proposals(context(*domains, runs=runs, slots=2))] == ["z"]


def test_a_priority_of_its_own_is_taken_back(tmp_path: Path) -> None:
    domains, runs = built(tmp_path, {"a": 40, "b": 10, "c": 10, "d": 10, "z": 10})
    own = one(
        tmp_path,
        "z",
        {"priority": 3},
        decisions=[{"key": "priority", "value": 3, "agent": "training_conductor"}],
    )
    worse = [
        one(tmp_path, name, {"priority": 2} if name != "a" else {}, decisions=own.decisions)
        for name in "bcd"
    ]
    assert changed(context(domains[0], *worse, own, runs=runs, slots=2)) == {"priority": 0}
    assert {
        found.domain: found.value
        for found in proposals(context(domains[0], *worse, own, runs=runs, slots=2))
    } == {
        "a": 1,
        "b": 0,
        "c": 0,
        "d": 0,
        "z": 0,
    }


# After a build.


def test_a_build_is_summed_up(tmp_path: Path) -> None:
    steps = [
        done("law", "dataset", 1.0, build="new", time=11.0, usd=0.25),
        dataclasses.replace(
            training("law", 3.0), build="new", time=31.0, seconds=20.0, peak_mb=900.0, usd=0.5
        ),
        dataclasses.replace(training("music", 5.4), build="new", time=21.0, seconds=10.0),
        dataclasses.replace(
            failed("gate-loss", "package", name="music"), build="new", time=22.0, seconds=1.0
        ),
    ]
    old = dataclasses.replace(training("law", 1.0), build="old", time=1.0, seconds=900.0)
    lines = list(
        agent.insights(context(one(tmp_path), one(tmp_path, "music"), runs=[old, *steps], slots=2))
    )
    assert lines[0] == (
        "Build new: 2 domains, 3 steps built, 1 steps failed in 21 s (at least 21 s on 2 slots), 0.75 US dollars; slowest "
        "law/adapter 20 s, most memory law/adapter 900 MB"
    )
    assert lines[1] == "Validation loss below the base's: most: law 50.0%; least: music 10.0%"
    assert lines[2].startswith("music/package failed: ")
    assert "proposed: training.epochs" in lines[2]


def test_before_the_first_build_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert list(agent.insights(context(one(tmp_path)))) == []


def test_a_checkpoint_that_waits_is_named(tmp_path: Path) -> None:
    left = (
        tmp_path / ".work" / "law-adapter-0123456789abcdef" / "checkpoint" / "training.checkpoint"
    )
    left.parent.mkdir(parents=True)
    left.touch()
    (line,) = agent.insights(context(one(tmp_path), one(tmp_path, "music")))
    assert line.startswith("law: an unfinished training left a checkpoint")
