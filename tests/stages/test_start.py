"""The start stage: one adapter a base, from a pinned sample, which domains' trainings begin from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from meetara_build.errors import DataError
from meetara_build.stages import adapter, start
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.stages.recipes.start import StartRecipe
from meetara_build.stages.types import Metrics
from tests.small_models import make_model, train_tokenizer
from tests.stages.test_adapter import RECIPE as ADAPTER
from tests.stages.test_adapter import SMALL, write_dataset

RECIPE: dict[str, Any] = {
    **{key: ADAPTER[key] for key in ("base", "seed", "threads", "device", "precision", "lora")},
    "max_tokens": 128,
    "epochs": 4,
    "batch_tokens": 128,
    "micro_batch_tokens": 64,
    "learning_rate": 5e-3,
}


def write_sample(path: Path, words: int = 3) -> Path:
    lines = []
    for number in range(12):
        messages = [
            {"role": "user", "content": f"How long do I boil carrot {number}?"},
            {"role": "assistant", "content": f"Boil it for {number + 3} minutes " * words},
        ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    base = tmp_path / "small"
    train_tokenizer(base, vocabulary=400)
    make_model(base, "llama", **SMALL)
    return {"base": base, "sample": write_sample(tmp_path / "sample.jsonl")}


def run(inputs: dict[str, Path], output: Path, **changes: Any) -> Metrics:
    output.mkdir(parents=True)
    return start.run(StartRecipe.model_validate({**RECIPE, **changes}), inputs, output)


def test_it_writes_an_adapter_that_a_domain_s_training_begins_from(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = run(inputs, tmp_path / "start")
    assert made["training_records"] == 12
    assert made["steps"] == len(
        json.loads((tmp_path / "start" / "training.json").read_text())["curve"]
    )
    write_dataset(tmp_path / "dataset")
    own = {"base": inputs["base"], "dataset": tmp_path / "dataset"}
    losses = {}
    for name, given in (("cold", own), ("begun", {**own, "start": tmp_path / "start"})):
        (tmp_path / name).mkdir()
        recipe = AdapterRecipe.model_validate(ADAPTER)
        losses[name] = adapter.run(recipe, given, tmp_path / name)["validation_loss_before"]
    assert losses["begun"] < 0.95 * losses["cold"]


def test_the_same_sample_gives_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(inputs, tmp_path / name)
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert any(tensor.count_nonzero() for key, tensor in load_file(one).items() if "lora_B" in key)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(one).values())


def test_records_that_are_too_long_are_left_out_and_counted(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    longer = write_sample(tmp_path / "longer.jsonl", words=30).read_text()
    inputs["sample"].write_text(inputs["sample"].read_text() + longer)
    made = run(inputs, tmp_path / "start")
    assert (made["training_records"], made["records_too_long"]) == (12, 12)
    inputs["sample"].write_text(longer)
    with pytest.raises(
        DataError, match=r"none of its 12 records has at most 128 tokens; raise data.max_tokens"
    ):
        run(inputs, tmp_path / "none")
