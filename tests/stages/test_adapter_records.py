"""What an adapter learns from: weights on topics, neighbours' records, another's weights; and what
is kept of each record."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from small_models import make_model, train_tokenizer

from meetara_build.errors import ConfigError
from meetara_build.stages import adapter
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.stages.types import Metrics, checkpoint_folder
from meetara_build.training import checkpoint
from meetara_build.training.settings import Action, Progress

RECIPE: dict[str, Any] = {
    "checkpoint_seconds": 60,
    "domain": "kitchen",
    "base": "small",
    "seed": 3,
    "threads": 1,
    "device": "cpu",
    "precision": "float32",
    "loss_on_prompt": False,
    "max_tokens": 128,
    "lora": {
        "rank": 4,
        "alpha": 8,
        "dropout": 0.0,
        "targets": "all-linear",
        "rslora": False,
        "dora": False,
    },
    "training": {
        "epochs": 2,
        "max_steps": None,
        "batch_tokens": 128,
        "micro_batch_tokens": None,
        "learning_rate": 5e-3,
        "warmup_share": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "patience": 3,
        "validations_per_epoch": 2,
        "joint": [],
        "topic_weights": {},
        "observers": [],
    },
}
KITCHEN = {"train": range(12), "validation": range(20, 24), "test": range(30, 32)}


def run(recipe: Mapping[str, Any], *more: Any) -> Metrics:
    """The stage, of a recipe that is written as JSON."""
    return adapter.run(AdapterRecipe.model_validate(recipe), *more)


def training(**changes: Any) -> dict[str, Any]:
    return {**RECIPE, "training": {**RECIPE["training"], **changes}}


def record(number: int) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"How long do I boil potato {number}?"},
        {"role": "assistant", "content": f"Boil it for {number + 3} minutes, then let it rest."},
    ]
    topic = "roots" if number % 3 == 0 else "stems" if number % 3 == 1 else None
    return {"id": f"{number:016x}", "messages": messages, "language": "en", "topic": topic}


def write(folder: Path, **sides: Sequence[int]) -> Path:
    folder.mkdir()
    for name, numbers in sides.items():
        lines = "".join(json.dumps(record(number)) + "\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    base = tmp_path / "small"
    train_tokenizer(base, vocabulary=400)
    make_model(base, "llama", hidden_size=64, intermediate_size=96)
    return {"base": base, "dataset": write(tmp_path / "dataset", **KITCHEN)}


def output(tmp_path: Path, name: str = "one") -> Path:
    folder = tmp_path / name / "out"
    folder.mkdir(parents=True)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_each_training_record_has_a_line_with_a_loss_an_epoch(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(RECIPE, inputs, output(tmp_path))
    found = lines(tmp_path / "one" / "out")
    assert [(line["id"], line["topic"]) for line in found] == [
        (record(number)["id"], record(number)["topic"]) for number in KITCHEN["train"]
    ]
    assert all(len(line["losses"]) == 2 and line["losses"][1] < line["losses"][0] for line in found)


def test_a_topic_s_records_come_as_often_as_its_weight_says(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    plain = run(RECIPE, inputs, output(tmp_path, "plain"))
    once = run(training(topic_weights={"roots": 1}), inputs, output(tmp_path, "once"))
    assert once == plain
    assert weights(tmp_path / "once" / "out") == weights(tmp_path / "plain" / "out")

    metrics = run(training(topic_weights={"roots": 3}), inputs, output(tmp_path))
    assert metrics["training_records"] == 12, "a record counts once, however often it comes"
    roots = run(RECIPE, inputs | {"dataset": roots_alone(tmp_path)}, output(tmp_path, "roots"))
    assert metrics["tokens"] == plain["tokens"] + 2 * roots["tokens"]
    assert [len(line["losses"]) for line in lines(tmp_path / "one" / "out")] == [2] * 12
    assert metrics["validation_loss_before"] == plain["validation_loss_before"]


def roots_alone(tmp_path: Path) -> Path:
    return write(tmp_path / "roots_alone", **{**KITCHEN, "train": range(0, 12, 3)})


def test_a_topic_that_no_record_has_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"kitchen: training\.topic_weights: .* the topic 'root'; did you mean 'roots'",
    ):
        run(training(topic_weights={"root": 2}), inputs, output(tmp_path))


def test_a_neighbour_s_training_records_are_learnt_too(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """But for those that the domain has itself: held out, they would spoil its figures; trained on,
    they would come twice."""
    garden = write(tmp_path / "garden", train=[0, 20, 30, *range(40, 46)])
    cellar = write(tmp_path / "cellar", train=[40, 50])
    joint = training(joint=["cellar", "garden"])
    metrics = run(
        joint, {**inputs, "joint/garden": garden, "joint/cellar": cellar}, output(tmp_path)
    )
    assert metrics["training_records"] == 12
    assert metrics["joint_records"] == 7
    assert metrics["validation_records"] == 4
    assert [line["id"] for line in lines(tmp_path / "one" / "out")] == [
        record(number)["id"] for number in range(12)
    ]

    together = write(
        tmp_path / "together", **{**KITCHEN, "train": [*range(12), 40, 50, *range(41, 46)]}
    )
    run(RECIPE, {**inputs, "dataset": together}, output(tmp_path, "together"))
    assert weights(tmp_path / "one" / "out") == weights(tmp_path / "together" / "out")


def test_a_neighbour_s_records_that_the_base_s_template_cannot_use_are_left_out(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """They were checked against the neighbour's own base."""
    strict = "{% if messages | length > 2 %}{{ raise_exception('One question only') }}{% endif %}"
    template = inputs["base"] / "chat_template.jinja"
    template.write_text(strict + template.read_text(encoding="utf-8"), encoding="utf-8")
    garden = write(tmp_path / "garden", train=range(40, 44))
    long = record(50) | {"messages": record(50)["messages"] * 2}
    with (garden / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(long) + "\n")
    metrics = run(training(joint=["garden"]), {**inputs, "joint/garden": garden}, output(tmp_path))
    assert (metrics["joint_records"], metrics["records_too_long"]) == (4, 1)


def test_a_neighbour_s_weights_that_help_are_gone_on_with(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    cold = run(RECIPE, inputs, output(tmp_path, "cold"))
    start = {"warm_start": tmp_path / "cold" / "out" / "adapter_model.safetensors"}
    metrics = run(training(warm_start="0" * 64), inputs | start, output(tmp_path))
    assert metrics["warm_start_won"]
    assert metrics["warm_start_loss"] < metrics["cold_start_loss"]
    assert metrics["race_steps"] == math.ceil(metrics["steps"] / 5)
    assert metrics["validation_loss_before"] == cold["validation_loss_after"]
    report = json.loads((tmp_path / "one" / "out" / "training.json").read_text())
    assert report["warm_start_won"] is True


def test_a_neighbour_s_weights_that_harm_leave_the_cold_start_s_adapter(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(RECIPE, inputs, output(tmp_path, "cold"))
    learnt = load_file(tmp_path / "cold" / "out" / "adapter_model.safetensors")
    bad = tmp_path / "bad.safetensors"
    save_file(
        {name: -20 * weight if "lora_B" in name else weight for name, weight in learnt.items()}, bad
    )
    metrics = run(training(warm_start="0" * 64), inputs | {"warm_start": bad}, output(tmp_path))
    assert not metrics["warm_start_won"]
    assert weights(tmp_path / "one" / "out") == weights(tmp_path / "cold" / "out")
    assert lines(tmp_path / "one" / "out") == lines(tmp_path / "cold" / "out")


def test_without_validation_records_a_warm_start_is_taken_unraced(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(RECIPE, inputs, output(tmp_path, "cold"))
    start = {"warm_start": tmp_path / "cold" / "out" / "adapter_model.safetensors"}
    blind = {"dataset": write(tmp_path / "blind", **{**KITCHEN, "validation": []})}
    metrics = run(training(warm_start="0" * 64), {**inputs, **start, **blind}, output(tmp_path))
    assert "warm_start_won" not in metrics
    assert weights(tmp_path / "one" / "out") != weights(tmp_path / "cold" / "out")


def test_what_observers_did_is_told(inputs: dict[str, Path], tmp_path: Path) -> None:
    def observe(progress: Progress) -> Action | None:
        return {2: Action.LOWER_LEARNING_RATE, 3: Action.CHECKPOINT, 4: Action.STOP}.get(
            progress.step
        )

    metrics = run(RECIPE, inputs, output(tmp_path), observe)
    assert (metrics["actions"], metrics["steps"], metrics["stopped_early"]) == (2, 4, True)
    report = json.loads((tmp_path / "one" / "out" / "training.json").read_text())
    assert report["actions"] == [[2, "lower_learning_rate"], [4, "stop"]]


def test_a_killed_stage_whose_checkpoint_is_damaged_gives_the_same_bytes(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    whole, cut = output(tmp_path, "whole"), output(tmp_path, "cut")
    run(RECIPE, inputs, whole)

    def kill(progress: Progress) -> Action:
        if progress.step == 5:
            raise KeyboardInterrupt
        return Action.CHECKPOINT

    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, inputs, cut, kill)
    path = checkpoint_folder(cut) / checkpoint.FILE
    path.write_bytes(path.read_bytes()[: -(1 << 10)])
    run(RECIPE, inputs, cut)
    for name in ("adapter_model.safetensors", "records.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
