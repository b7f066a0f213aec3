"""data_generation weights weak topics, and says what data a domain lacks and where its sources lose
records."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import contexts
import pytest

from meetara_build.agents import Context, Domain, Proposal

AGENT = contexts.load("data_generation")
WEIGHTS = "training.topic_weights"
EVEN = {"labels": 5.0, "drinks": 5.0, "safety": 5.0}
WEAK = {**EVEN, "diets": 5.9}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = isinstance(content, list)
    path.write_text(
        "".join(json.dumps(line) + "\n" for line in content) if lines else json.dumps(content)
    )


def build(
    folder: Path,
    means: Mapping[str, float],
    name: str = "nutrition",
    counts: Mapping[str, int] | None = None,
    held_out: Mapping[str, float] | None = None,
    account: Sequence[Mapping[str, Any]] = (),
    **fields: Any,
) -> Domain:
    """A trained domain: the mean first loss of each topic's records, and which share of the base's
    loss is left on held-out ones."""
    domain: Domain = contexts.domain(folder, name, **fields)
    draw = random.Random(0)
    records = [
        {"id": f"{topic}{at}", "topic": topic, "losses": [draw.gauss(mean, 0.3), 3.0]}
        for topic, mean in means.items()
        for at in range((counts or {}).get(topic, 20))
    ]
    write(domain.folder / "adapter/records.jsonl", records)
    write(
        domain.folder / "dataset/train.jsonl",
        [{"id": one["id"], "topic": one["topic"]} for one in records],
    )
    write(domain.folder / "dataset/account.jsonl", list(account))
    shares = held_out or {}
    evaluation = {
        "by_topic": {topic: [6.0 * share, 100] for topic, share in shares.items()},
        "base_by_topic": dict.fromkeys(shares, 6.0),
    }
    write(domain.folder / "evaluation/evaluation.json", evaluation)
    return domain


def proposals(context: Context) -> list[Proposal]:
    return list(AGENT.propose(context))


def test_a_weak_topic_is_weighted(tmp_path: Path) -> None:
    (proposal,) = proposals(contexts.context(build(tmp_path, WEAK)))
    assert (proposal.key, proposal.value) == (WEIGHTS, {"diets": 2})
    assert "'diets' (+1" in proposal.reason
    assert 0 < proposal.expected_gain <= 0.005
    assert proposal.confidence <= 0.3


def test_topics_that_are_alike_are_left_alone(tmp_path: Path) -> None:
    assert proposals(contexts.context(build(tmp_path, EVEN))) == []


def test_weights_that_are_there_stay_and_are_not_raised(tmp_path: Path) -> None:
    domain = build(tmp_path, WEAK, config={WEIGHTS: {"diets": 3}})
    assert proposals(contexts.context(domain)) == []
    (proposal,) = proposals(
        contexts.context(build(tmp_path, WEAK, config={WEIGHTS: {"labels": 2}}))
    )
    assert proposal.value == {"labels": 2, "diets": 2}


def test_locked_weights_are_left_alone(tmp_path: Path) -> None:
    assert proposals(contexts.context(build(tmp_path, WEAK, locked=["training"]))) == []


def test_records_of_joint_domains_are_not_the_domains_own(tmp_path: Path) -> None:
    domain = build(tmp_path, WEAK)
    own = [{"id": f"{topic}{at}", "topic": topic} for topic in EVEN for at in range(20)]
    write(domain.folder / "dataset/train.jsonl", own)
    assert proposals(contexts.context(domain)) == []


@pytest.mark.parametrize(("after", "gain"), [(4.9, 0.02), (5.2, None)])
def test_weights_are_proposed_as_long_as_they_did_good(
    after: float, gain: float | None, tmp_path: Path
) -> None:
    names = ("nutrition", "sleep", "music", "law")
    domains = [build(tmp_path, WEAK if name == "nutrition" else EVEN, name) for name in names]
    runs = [
        contexts.training(name, loss, {WEIGHTS: weights})
        for name in names
        for loss, weights in ((5.0, {}), (after, {"a": 2}))
    ]
    found = proposals(contexts.context(*domains, runs=runs))
    assert [proposal.expected_gain for proposal in found] == ([pytest.approx(gain)] if gain else [])


# What people are told


def line_of(context: Context, word: str) -> str:
    (line,) = [line for line in AGENT.insights(context) if word in line]
    return str(line)


def test_a_weak_topic_is_told_with_what_it_needs(tmp_path: Path) -> None:
    counts = {"labels": 80, "drinks": 40, "safety": 40, "diets": 20}
    held_out = {topic: 1.2 * count**-0.1 for topic, count in counts.items()}
    others = {"a": 10, "b": 20, "c": 40, "d": 80, "e": 160}
    noise = random.Random(0)
    law = {
        topic: 1.1 * count**-0.1 * (1 + noise.gauss(0, 0.004)) for topic, count in others.items()
    }
    context = contexts.context(
        build(tmp_path, WEAK, counts=counts, held_out=held_out),
        build(tmp_path, dict.fromkeys(others, 5.0), "sleep", others, law),
    )
    line = line_of(context, "'diets' is weak")
    assert "of its 20 records" in line
    fewest, most = (int(word) for word in line.partition("about ")[2].split()[:3:2])
    assert fewest <= 20 <= most


def test_where_that_cannot_be_told_it_says_so(tmp_path: Path) -> None:
    held_out = {"labels": 0.8, "drinks": 0.8, "safety": 0.8, "diets": 0.9}
    line = line_of(contexts.context(build(tmp_path, WEAK, held_out=held_out)), "'diets' is weak")
    assert line.endswith("how many more records would do cannot be told from these domains")


def test_a_topic_that_training_helps_as_much_as_others_is_called_hard(tmp_path: Path) -> None:
    held_out = dict.fromkeys(WEAK, 0.8)
    line = line_of(contexts.context(build(tmp_path, WEAK, held_out=held_out)), "'diets' is weak")
    assert line.endswith("it may be harder by nature")


def test_a_source_that_loses_many_records_is_named_with_the_reasons_and_keys(
    tmp_path: Path,
) -> None:
    account = [
        *({"source": f"a.csv:{at}", "id": str(at), "side": "train"} for at in range(1, 7)),
        *({"source": f"a.csv:{at}", "reason": "too long", "matched": None} for at in (7, 8)),
        {"source": "a.csv:9", "reason": "near-duplicate", "matched": "a.csv:1"},
        {"source": "a.csv", "line": 10, "column": "answer", "problem": "is missing", "found": ""},
        {"source": "a.csv", "line": 10, "column": "topic", "problem": "is missing", "found": ""},
        *({"source": f"b.csv:{at}", "id": f"b{at}", "side": "test"} for at in range(1, 20)),
        {"source": "b.csv:20", "reason": "too short", "matched": None},
    ]
    line = line_of(contexts.context(build(tmp_path, EVEN, account=account)), "left out")
    assert line.startswith(
        "nutrition: a.csv: 4 of 10 records are left out: 2 too long (data.max_tokens in conf/build.yaml"
    )
    assert "1 near-duplicate" in line
    assert "is missing" in line
    assert "b.csv" not in line


def test_nothing_built_nothing_said(tmp_path: Path) -> None:
    context = contexts.context(contexts.domain(tmp_path, "nutrition"))
    assert proposals(context) == []
    assert list(AGENT.insights(context)) == []
