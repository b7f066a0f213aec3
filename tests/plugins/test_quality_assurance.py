"""quality_assurance stops, slows and rolls back a training, drops what looks wrong, and keeps worse
models from being packaged."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import contexts
import pytest

from meetara_build.agents import Action, Context, Domain, Progress, Proposal, Run
from meetara_build.training.settings import Point

AGENT = contexts.load("quality_assurance")
WORDS = {
    "bread": ["flour", "yeast", "oven", "dough", "crust", "loaf", "knead", "rise", "bake", "salt"],
    "bikes": [
        "chain",
        "wheel",
        "brake",
        "pedal",
        "gear",
        "tyre",
        "spoke",
        "saddle",
        "frame",
        "pump",
    ],
}
SWAPPED = ("bread0", "bikes0", "bread1", "bikes1")


def curve(steps: int = 60, scale: float = 0.015, rise: float = 0.0) -> list[Point]:
    """Validated every tenth step; falls by the law of the forecast, and rises by ``rise`` a
    step."""
    done, points = 0.0, []
    for step in range(steps):
        rate = 2e-3 * (1 + math.cos(math.pi * step / steps)) / 2
        done += rate
        loss = 5 + math.exp(-done / scale) + rise * step
        points.append((step + 1, loss, loss if (step + 1) % 10 == 0 else None, rate))
    return points


def progress(points: Sequence[Point], steps: int = 60, **fields: Any) -> Progress:
    """What an observer sees after the last of these points."""
    step, loss, checked, rate = points[-1]
    return Progress(
        step,
        steps,
        0,
        loss,
        checked,
        rate,
        1.0,
        512,
        100,
        1.0,
        points,
        validation_before=6.0,
        **fields,
    )


def actions(points: Sequence[Point], steps: int = 60) -> dict[int, Action]:
    """What the agent asks for, by step, until it stops."""
    found = {}
    for end in range(1, len(points) + 1):
        if action := AGENT.observe(progress(points[:end], steps)):
            found[end] = action
            if action == Action.STOP:
                break
    return found


# Watching


def test_a_step_that_is_not_finite_is_rolled_back() -> None:
    assert AGENT.observe(progress(curve()[:5], fault="not_finite")) == Action.ROLL_BACK
    assert AGENT.observe(progress(curve()[:5], fault="out_of_memory")) is None


def test_a_training_that_gains_is_left_alone() -> None:
    assert actions(curve(scale=0.06)[:40]) == {}


def test_a_training_with_nothing_left_to_gain_is_stopped_without_loss() -> None:
    points = curve(scale=0.004)
    (stopped,) = actions(points)
    assert stopped in (20, 30, 40, 50)
    best = min(checked for _, _, checked, _ in points[:stopped] if checked)
    assert best < 1.002 * min(checked for _, _, checked, _ in points if checked)


def test_a_training_that_diverges_is_slowed_down() -> None:
    """It falls to its tenth step, so what was gained is kept, and rises from then on."""
    points = [
        (step, loss, checked and loss, rate)
        for step, _, checked, rate in curve()
        for loss in [5.5 if step <= 10 else 5.5 + 0.05 * step]
    ]
    assert next(iter(actions(points).values())) == Action.LOWER_LEARNING_RATE


def test_a_training_that_only_rises_begins_again_at_half_the_rate() -> None:
    points = [
        (step, 6 + 0.1 * step, checked and 6 + 0.1 * step, rate)
        for step, _, checked, rate in curve()
    ]
    assert next(iter(actions(points).values())) == Action.ROLL_BACK


# Between builds


def build(
    folder: Path,
    name: str = "nutrition",
    records: Sequence[Mapping[str, Any]] = (),
    points: Sequence[Point] = (),
    **fields: Any,
) -> Domain:
    """A domain whose artifacts hold these records and this curve."""
    made: Domain = contexts.domain(
        folder, name, config={"data.drop": [], "evaluation.max_loss": None}, **fields
    )
    for place, lines in {
        "dataset/train.jsonl": records,
        "dataset/account.jsonl": [
            {"source": f"{name}.jsonl:{at}", "id": record["id"], "side": "train"}
            for at, record in enumerate(records, 1)
        ],
        "adapter/records.jsonl": [
            {"id": r["id"], "topic": r["topic"], "losses": [5.0, 4.0]} for r in records
        ],
    }.items():
        (made.folder / place).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / place).write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = {"curve": points, "stopped_early": False, "actions": [], "validation_loss_before": 6.0}
    (made.folder / "adapter" / "training.json").write_text(json.dumps(report))
    return made


@pytest.fixture(scope="module")
def spoilt() -> list[dict[str, Any]]:
    """60 records, four of which have another's answer; bread2 says that it is about bikes."""
    draw = random.Random(0)
    records = [
        {
            "id": f"{topic}{at}",
            "topic": topic,
            "messages": [
                {"role": role, "content": " ".join(draw.choices(WORDS[topic], k=count))}
                for role, count in (("user", 8), ("assistant", 24))
            ],
        }
        for topic in WORDS
        for at in range(30)
    ]
    by_id = {record["id"]: record for record in records}
    for one, other in (SWAPPED[:2], SWAPPED[2:]):
        answers = by_id[one]["messages"][-1], by_id[other]["messages"][-1]
        by_id[other]["messages"][-1], by_id[one]["messages"][-1] = answers
    by_id["bread2"]["topic"] = "bikes"
    return records


def proposals(context: Context, key: str) -> list[Proposal]:
    return [proposal for proposal in AGENT.propose(context) if proposal.key == key]


def test_few_of_the_records_that_look_wrong_are_dropped_at_once(
    spoilt: list[dict], tmp_path: Path
) -> None:
    domain = build(tmp_path, records=spoilt)
    (proposal,) = proposals(contexts.context(domain), "data.drop")
    assert len(proposal.value) == 1
    assert set(proposal.value) <= set(SWAPPED)
    assert "nutrition.jsonl:" in proposal.reason
    assert 0 < proposal.expected_gain <= 0.005
    assert proposals(contexts.context(domain), "data.drop") == [proposal]


def test_what_is_dropped_already_stays_dropped(spoilt: list[dict], tmp_path: Path) -> None:
    domain = build(tmp_path, records=spoilt)
    config = {**domain.config, "data.drop": ["0123456789abcdef"]}
    domain = Domain(**{**domain.__dict__, "config": config})
    (proposal,) = proposals(contexts.context(domain), "data.drop")
    assert "0123456789abcdef" in proposal.value
    assert len(proposal.value) == 2


def test_records_that_were_dropped_in_vain_are_not_proposed_again(
    spoilt: list[dict], tmp_path: Path
) -> None:
    domain = build(tmp_path, records=spoilt)
    (first,) = proposals(contexts.context(domain), "data.drop")
    message = {
        "about": "proposal",
        "sender": "quality_assurance",
        "domain": "nutrition",
        "id": "p1",
        "body": {"key": "data.drop", "value": first.value},
        "answers": [{"answer": "rejected"}],
    }
    later = proposals(contexts.context(domain, messages=[message]), "data.drop")
    assert all(not set(proposal.value) & set(first.value) for proposal in later)


def test_a_record_with_a_wrong_topic_is_named_with_its_line(
    spoilt: list[dict], tmp_path: Path
) -> None:
    (line,) = [
        line
        for line in AGENT.insights(contexts.context(build(tmp_path, records=spoilt)))
        if "topic" in line
    ]
    assert "nutrition.jsonl:3 (bread2) its topic is 'bikes', its words say 'bread'" in line


def test_locked_keys_are_left_alone(spoilt: list[dict], tmp_path: Path) -> None:
    domain = build(
        tmp_path, records=spoilt, points=curve(scale=0.004), locked=["data", "training.observers"]
    )
    assert list(AGENT.propose(contexts.context(domain))) == []


def test_it_proposes_to_watch_where_that_saves_steps(tmp_path: Path) -> None:
    (proposal,) = proposals(
        contexts.context(build(tmp_path, points=curve(scale=0.004))), "training.observers"
    )
    assert proposal.value == ["quality_assurance"]
    assert proposal.figure == "seconds"
    assert proposal.expected_gain == pytest.approx(
        1 - actions(curve(scale=0.004)).popitem()[0] / 60
    )
    assert (
        proposals(contexts.context(build(tmp_path, points=curve(scale=0.06))), "training.observers")
        == []
    )


def test_it_proposes_to_watch_where_the_loss_was_not_finite(tmp_path: Path) -> None:
    domain = build(tmp_path, points=curve(scale=0.06))
    failed = contexts.training(
        "nutrition", 5.0, outcome="failed", code="training-not-finite", error="step 3: …"
    )
    (proposal,) = proposals(contexts.context(domain, runs=[failed]), "training.observers")
    assert failed.id in proposal.evidence[0]
    solved = contexts.training("nutrition", 5.0)
    assert proposals(contexts.context(domain, runs=[failed, solved]), "training.observers") == []


# Regressions


def evaluation(loss: float, key: str) -> Run:
    """An evaluation on the same held-out records as the others."""
    run = contexts.training("nutrition", loss)
    fields = {
        "stage": "evaluate",
        "key": key,
        "metrics": {"losses": {"F16": loss}},
        "inputs": {"dataset": "d"},
    }
    return Run(**{**run.__dict__, **fields})


@pytest.mark.parametrize(
    ("losses", "now", "wanted"),
    [
        ([5.0], None, None),  # a single result is no record
        ([5.2, 5.0], None, 5.1),
        ([5.2, 5.0], 6.0, 5.1),
        ([5.2, 5.0], 5.05, None),  # the bound is tighter already
        ([5.0, 5.3], None, None),  # the newest would be refused: that is told, not done
    ],
)
def test_a_bound_keeps_later_worse_models_from_being_packaged(
    losses: list[float], now: float | None, wanted: float | None, tmp_path: Path
) -> None:
    domain = build(tmp_path)
    domain = Domain(**{**domain.__dict__, "config": {**domain.config, "evaluation.max_loss": now}})
    runs = [evaluation(loss, f"k{at}") for at, loss in enumerate(losses)]
    found = proposals(contexts.context(domain, runs=runs), "evaluation.max_loss")
    assert [proposal.value for proposal in found] == ([wanted] if wanted else [])


def test_a_regression_is_named_with_what_differs(tmp_path: Path) -> None:
    runs = [
        contexts.training("nutrition", 5.0),
        evaluation(5.0, "k1"),
        contexts.training("nutrition", 5.4, {"training.epochs": 1}),
        evaluation(5.4, "k2"),
    ]
    (line,) = AGENT.insights(contexts.context(build(tmp_path), runs=runs))
    assert line.startswith("nutrition: held-out loss rose from 5.000")
    assert "training.epochs: 3 → 1" in line


# Forecasts


def test_how_good_forecasts_are_is_told(tmp_path: Path) -> None:
    domains = [
        build(tmp_path, name, points=curve(scale=scale))
        for name, scale in (("a", 0.01), ("b", 0.02))
    ]
    (line,) = AGENT.insights(contexts.context(*domains))
    assert "(median of 2 domains)" in line


# Longer


def trained(folder: Path, points: Sequence[Point], **config: Any) -> Context:
    """A domain whose current training went this way, in ten seconds."""
    run = contexts.training("nutrition", 5.0, metrics={"steps": len(points)})
    domain = build(folder, points=points, decided={"adapter": run.key})
    return contexts.context(
        replace(domain, config={**domain.config, **config}),
        runs=[run],
        policy={"minutes_a_percent": 10, "at_most_times": 8},
    )


def slowing(whole: float = 0.05, steps: int = 60) -> list[Point]:
    """A training at an even rate whose loss falls as 1/S does: by ``whole`` of its floor in the
    second half."""
    return [
        (step, loss, loss if step % 10 == 0 else None, 1e-3)
        for step in range(1, steps + 1)
        for loss in [5 * (1 + whole * steps / step)]
    ]


def test_a_training_that_still_gained_at_its_end_is_made_longer(tmp_path: Path) -> None:
    (proposal,) = proposals(trained(tmp_path, slowing(0.01)), "training.epochs")
    assert (proposal.value, proposal.figure) == (2 * 3, "loss")
    (proposal,) = proposals(trained(tmp_path, slowing(0.02)), "training.epochs")
    assert proposal.value == 4 * 3
    at = {times: 5 * (1 + 0.02 / times) for times in (1, 4)}
    assert proposal.expected_gain == pytest.approx((at[1] - at[4]) / at[1], rel=0.05)
    bounded = trained(tmp_path, slowing(0.01), **{"training.max_steps": 100})
    both = [*proposals(bounded, "training.epochs"), *proposals(bounded, "training.max_steps")]
    assert [one.value for one in both] == [6, 120]
    assert not proposals(
        trained(tmp_path, slowing(0.01), **{"training.max_steps": 120}), "training.max_steps"
    )


def test_no_longer_than_pays_and_policy_allows(tmp_path: Path) -> None:
    def times(minutes_a_percent: float, at_most: float = 8) -> int:
        made = trained(tmp_path, slowing(0.05))
        policy = {**made.policy, "minutes_a_percent": minutes_a_percent, "at_most_times": at_most}
        found = proposals(replace(made, policy=policy), "training.epochs")
        return found[0].value // 3 if found else 1

    assert [times(price) for price in (100, 0.5, 0.2, 0.05)] == [8, 4, 2, 1]
    assert times(100, at_most=5) == 4


def test_a_training_that_ended_past_its_best_or_flat_is_not(tmp_path: Path) -> None:
    rising = [*slowing()[:40], *((step, 5.5, 5.5, 1e-3) for step in range(41, 61))]
    assert not proposals(trained(tmp_path, rising), "training.epochs")
    assert not proposals(trained(tmp_path, slowing(0.006)), "training.epochs")
