"""gpu_optimizer: which micro-batch it proposes, and what it does while a training runs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contexts import context, domain, load, training

from meetara_build.agents import Action, Context, Domain, Progress, Proposal, Run

agent = load("gpu_optimizer")

MICRO = "training.micro_batch_tokens"
MODEL = {
    "name": "mini",
    "parameters": 1_200_000_000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "layers": 16,
    "heads": 32,
    "kv_heads": 8,
    "vocab_size": 128_256,
}
GPU = {
    "device": "cuda",
    "gpus": 1,
    "gpu_memory_gb": 24,
    "memory_gb": 48,
    "threads": 4,
    "precision": "bfloat16",
}
CPU = {
    "device": "cpu",
    "gpus": 0,
    "gpu_memory_gb": 0,
    "memory_gb": 16,
    "threads": 1,
    "precision": "float32",
}


def one(folder: Path, config: dict[str, Any] | None = None, **fields: Any) -> Domain:
    """A domain on a base of a billion parameters."""
    return domain(folder, "law", config=config, **{"model": MODEL, "machine": GPU, **fields})


def base_known() -> Run:
    """A run that says which base a digest is of."""
    return Run(
        id="gguf1",
        time=0.0,
        domain="law",
        stage="gguf",
        build="b",
        machine="here",
        hardware="cpu",
        outcome="built",
        seconds=1.0,
        cpu_seconds=1.0,
        peak_mb=1.0,
        size=1,
        fingerprint="f",
        key="g",
        usd=0.0,
        recipe={"base": "mini"},
        inputs={"base": "base-digest"},
    )


def proposals(seen: Context) -> list[Proposal]:
    """What it proposes; the same when asked again."""
    found = list(agent.propose(seen))
    assert list(agent.propose(seen)) == found
    return found


def after(folder: Path, micro: int | None, seconds: float, **fields: Any) -> Run:
    """A training of a million tokens with this micro-batch."""
    return training(
        "law",
        2.0,
        {"training.batch_tokens": 8192, MICRO: micro},
        seconds=seconds,
        metrics={"tokens": 3_000_000},
        **fields,
    )


def progress(tokens: int, fault: str | None) -> Progress:
    """A step that failed, or did not."""
    return Progress(4, 10, 0, 2.0, None, 1e-4, 1.0, tokens, 100, 1.0, [(4, 2.0, None, 1e-4)], fault)


def test_a_training_that_does_not_fit_gets_a_smaller_micro_batch(tmp_path: Path) -> None:
    (found,) = proposals(context(one(tmp_path, {"training.batch_tokens": 65536})))
    assert (found.domain, found.key, found.figure) == ("law", MICRO, "memory")
    assert 65536 % found.value == 0
    measured = agent.Measured(context(one(tmp_path, {"training.batch_tokens": 65536})))
    shape = measured.shape(one(tmp_path, {MICRO: found.value}))
    assert measured.peak(shape) <= 0.9 * 24e9 < measured.peak(shape.with_tokens(2 * found.value))
    assert found.expected_gain == pytest.approx(
        1 - measured.peak(shape) / measured.peak(shape.with_tokens(65536))
    )


def test_of_trainings_that_share_a_trainer_s_passes_nothing_is_said(tmp_path: Path) -> None:
    shared = one(tmp_path, {"training.batch_tokens": 65536}, machine={**GPU, "slots": 4})
    assert proposals(context(shared)) == []
    assert agent.Measured(context(shared)).shape(shared) is None


def test_a_training_that_fits_is_left_alone(tmp_path: Path) -> None:
    assert proposals(context(one(tmp_path))) == []


def test_jobs_side_by_side_share_the_memory(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 2048}, machine={**CPU, "memory_gb": 32})
    assert proposals(context(law, slots=1)) == []
    (found,) = proposals(context(law, slots=2))
    assert found.key == MICRO
    assert found.value < 2048


def test_measured_peaks_decide_where_there_are_some(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 8192}, machine=CPU | {"memory_gb": 40})
    runs = [
        after(tmp_path, micro, 10.0, peak_mb=6_000.0 + micro) for micro in (1024, 2048, 4096, 8192)
    ]
    assert [found.key for found in proposals(context(law))] == [MICRO], (
        "as the trainer is written it would not fit"
    )
    assert proposals(context(law, runs=[base_known(), *runs])) == [], "but it was measured to"


def test_where_the_longest_record_would_not_fit_gradients_are_checkpointed(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 8192}, machine={**GPU, "gpu_memory_gb": 4})
    found = {proposal.key: proposal.value for proposal in proposals(context(law))}
    assert found.keys() == {MICRO, "training.gradient_checkpointing"}
    measured = agent.Measured(context(law))
    shape = measured.shape(one(tmp_path, {**found}))
    assert shape.checkpointed
    assert measured.peak(shape) <= 0.9 * 4e9 < measured.peak(replace(shape, checkpointed=False))


def test_where_even_that_is_not_enough_the_longest_records_are_left_out(tmp_path: Path) -> None:
    law = one(
        tmp_path,
        {"training.batch_tokens": 8192, "data.max_tokens": 4096},
        machine={**GPU, "gpu_memory_gb": 4},
        model={**MODEL, "layers": 18},
    )
    found = {proposal.key: proposal.value for proposal in proposals(context(law))}
    assert found == {MICRO: 2048, "training.gradient_checkpointing": True, "data.max_tokens": 2048}


def test_what_bfloat16_would_save_is_an_insight(tmp_path: Path) -> None:
    law = one(
        tmp_path,
        {"training.batch_tokens": 8192},
        machine={**GPU, "precision": "float32", "gpu_memory_gb": 16},
    )
    (line,) = agent.insights(context(law))
    assert re.search(
        r"law: about [\d.]+ GB at its peak, and [\d.]+ GB with precision: bfloat16 in conf/hardware/cpu.yaml",
        line,
    )


def test_what_cannot_fit_is_an_insight_and_no_proposal(tmp_path: Path) -> None:
    seen = context(one(tmp_path, machine={**GPU, "gpu_memory_gb": 2}))
    assert proposals(seen) == []
    (line,) = agent.insights(seen)
    assert line.startswith("law: mini needs")
    assert "take a smaller base" in line


@pytest.mark.parametrize("locked", [MICRO, "training"])
def test_nothing_is_proposed_for_what_is_locked(tmp_path: Path, locked: str) -> None:
    assert (
        proposals(context(one(tmp_path, {"training.batch_tokens": 65536}, locked=[locked]))) == []
    )


def test_nothing_is_proposed_for_a_base_of_unknown_sizes(tmp_path: Path) -> None:
    unknown = {**MODEL, "hidden_size": None}
    assert proposals(context(one(tmp_path, {"training.batch_tokens": 65536}, model=unknown))) == []


def test_a_larger_micro_batch_is_proposed_where_it_was_faster(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 8192, MICRO: 512}, machine=GPU)
    runs = [
        base_known(),
        after(tmp_path, 512, 20.0),
        after(tmp_path, 2048, 15.0),
        after(tmp_path, 1024, 19.8),
    ]
    (found,) = proposals(context(law, runs=runs))
    assert (found.key, found.value, found.figure) == (MICRO, 2048, "seconds")
    assert found.expected_gain == pytest.approx(0.25)
    assert any(runs[2].id in line for line in found.evidence)


def test_a_larger_one_that_was_not_faster_is_not(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 8192, MICRO: 512})
    assert (
        proposals(
            context(
                law, runs=[base_known(), after(tmp_path, 512, 20.0), after(tmp_path, 2048, 19.5)]
            )
        )
        == []
    )


def gpu_at(percent: float) -> dict[str, Any]:
    """A sample of a GPU."""
    gpus = [{"gpu": 0, "percent": percent, "memory_mb": 6000.0, "total_mb": 24000.0}]
    return {
        "resource_status": {
            "gpu_utilization": [{"machine": "there", "gpus": gpus}],
            "memory_usage": {},
        }
    }


def test_a_gpu_that_idles_is_tried_with_twice_the_micro_batch(tmp_path: Path) -> None:
    law = one(tmp_path, {"training.batch_tokens": 2048, MICRO: 512})
    (found,) = proposals(context(law, sections=gpu_at(20.0)))
    assert found.value == 1024
    assert proposals(context(law, sections=gpu_at(90.0))) == []


def test_what_had_to_be_halved_is_remembered(tmp_path: Path) -> None:
    run = training("law", 2.0)
    law = one(tmp_path, decided={"adapter": run.key})
    (law.folder / "adapter").mkdir(parents=True)
    report = {
        "actions": [[3, "halve_micro_batch"], [4, "lower_learning_rate"], [9, "halve_micro_batch"]]
    }
    (law.folder / "adapter" / "training.json").write_text(json.dumps(report))
    (found,) = proposals(context(law, runs=[run]))
    assert (found.key, found.value) == (MICRO, 256)
    assert run.id in found.evidence[0]
    again = one(tmp_path, {MICRO: 256}, decided={"adapter": run.key})
    assert proposals(context(again, runs=[run])) == [], "it is configured now, and not trained yet"


def test_out_of_memory_halves_the_micro_batch_and_nothing_else_does() -> None:
    assert agent.observe(progress(1024, "out_of_memory")) == Action.HALVE_MICRO_BATCH
    assert agent.observe(progress(1024, "not_finite")) is None
    assert agent.observe(progress(1024, None)) is None
    assert agent.observe(progress(64, "out_of_memory")) is None, (
        "records are longer: halving changes nothing"
    )


@pytest.mark.parametrize(
    ("gpu", "cores", "expected"),
    [(95.0, 30.0, "Bottleneck: compute"), (20.0, 100.0, "Bottleneck: data")],
)
def test_what_holds_a_gpu_up_is_named(
    tmp_path: Path, gpu: float, cores: float, expected: str
) -> None:
    sections = gpu_at(gpu)
    job = {"domain": "law", "stage": "adapter", "memory_mb": 900.0, "cpu_percent": cores}
    sections["resource_status"]["memory_usage"] = {"machines": [], "jobs": [job]}
    assert any(
        line.startswith(expected)
        for line in agent.insights(context(one(tmp_path), sections=sections))
    )


@pytest.mark.parametrize(("cpu_seconds", "expected"), [(19.0, "compute"), (4.0, "data")])
def test_what_holds_cores_up_is_told_by_their_time(
    tmp_path: Path, cpu_seconds: float, expected: str
) -> None:
    run = after(tmp_path, None, 20.0, cpu_seconds=cpu_seconds)
    assert any(
        line.startswith(f"Bottleneck: {expected}")
        for line in agent.insights(context(one(tmp_path), runs=[run]))
    )


def test_a_machine_without_memory_left_is_named(tmp_path: Path) -> None:
    machine = {"machine": "there", "available_mb": 500.0, "total_mb": 16000.0}
    sections = {
        "resource_status": {
            "gpu_utilization": [],
            "memory_usage": {"machines": [machine], "jobs": []},
        }
    }
    assert any(
        line.startswith("Bottleneck: memory; there")
        for line in agent.insights(context(one(tmp_path), sections=sections))
    )
