"""The adapter stage: files in, files out, and each fault as one message."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from meetara_build.errors import SetupError, TrainingError
from meetara_build.stages import adapter
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.stages.types import Metrics, checkpoint_folder
from meetara_build.training import model
from meetara_build.training.settings import Action, Progress
from tests.small_models import make_model, train_tokenizer

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
    },
}
SMALL = {"hidden_size": 64, "intermediate_size": 96}


def run(recipe: Mapping[str, Any], *more: Any) -> Metrics:
    """The stage, of a recipe that is written as JSON."""
    return adapter.run(AdapterRecipe.model_validate(recipe), *more)


def write_dataset(folder: Path, answer: str | None = None) -> None:
    folder.mkdir()
    for name, count in (("train", 12), ("validation", 4), ("test", 2)):
        lines = []
        for number in range(count):
            said = (
                f"Boil it for {number + 3} minutes, then let it rest." if answer is None else answer
            )
            messages = [
                {"role": "user", "content": f"How long do I boil {name} potato {number}?"},
                {"role": "assistant", "content": said},
            ]
            record = {"id": f"{number:016x}", "messages": messages, "language": "en", "topic": None}
            lines.append(json.dumps(record))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    base = tmp_path / "small"
    train_tokenizer(base, vocabulary=400)
    make_model(base, "llama", **SMALL)
    write_dataset(tmp_path / "dataset")
    return {"base": base, "dataset": tmp_path / "dataset"}


def fresh(tmp_path: Path, name: str = "one") -> Path:
    output = tmp_path / name / "out"
    output.mkdir(parents=True)
    return output


def without_measured(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    measured = report.pop("measured")
    assert measured["device"] == "cpu"
    assert measured["peak_memory_bytes"] > 2**20
    speeds = (
        "seconds",
        "cpu_seconds",
        "completion_tokens_per_second",
        "completion_tokens_per_cpu_second",
    )
    assert all(measured[name] > 0 for name in speeds)
    return report


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": {**RECIPE["lora"], "dora": True}}, "lora.dora"),
        ({"lora": {**RECIPE["lora"], "dropout": 0.1}}, "lora.dropout"),
        (
            {"training": {**RECIPE["training"], "gradient_checkpointing": True}},
            "training.gradient_checkpointing",
        ),
    ],
)
def test_what_slots_cannot_carry_is_trained_as_ever_and_that_is_said(
    changes: dict[str, Any], reason: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    plain, shared = fresh(tmp_path), fresh(tmp_path, "two")
    metrics = run(RECIPE | changes, inputs, plain)
    said = {"company": "none", "company_reason": reason}
    assert run(RECIPE | changes | {"slots": 3}, inputs, shared) == {**metrics, **said}
    for name in ("adapter_model.safetensors", "adapter_config.json", "records.jsonl"):
        assert (plain / name).read_bytes() == (shared / name).read_bytes()
    measured = json.loads((shared / "training.json").read_text())["measured"]
    assert said.items() <= measured["computed"].items()


def test_it_writes_an_adapter_that_peft_loads_and_that_lowers_the_loss(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    output = fresh(tmp_path)
    metrics = run(RECIPE, inputs, output)

    assert sorted(path.name for path in output.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "records.jsonl",
        "training.json",
    ]
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]
    assert metrics["training_records"] == 12
    report = without_measured(output / "training.json")
    assert [point[0] for point in report["curve"]] == list(range(1, metrics["steps"] + 1))
    assert report.pop("actions") == []
    assert metrics.pop("actions") == 0
    assert {name: report[name] for name in metrics} == metrics

    base = AutoModelForCausalLM.from_pretrained(inputs["base"])
    plain = base(input_ids=torch.arange(9)[None]).logits
    assert not torch.allclose(
        PeftModel.from_pretrained(base, str(output))(input_ids=torch.arange(9)[None]).logits, plain
    )


def test_its_configuration_names_the_base_without_a_path(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    output = fresh(tmp_path)
    run(RECIPE, inputs, output)
    text = (output / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "small"
    assert str(tmp_path) not in text


def test_the_same_inputs_give_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    one, two = fresh(tmp_path, "one"), fresh(tmp_path, "two")
    assert run(RECIPE, inputs, one) == run(RECIPE, inputs, two)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert without_measured(one / "training.json") == without_measured(two / "training.json")


def test_a_killed_stage_goes_on_to_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    whole, cut = fresh(tmp_path, "whole"), fresh(tmp_path, "cut")
    run(RECIPE, inputs, whole)

    def kill(progress: Progress) -> Action | None:
        if progress.step == 5:
            raise KeyboardInterrupt
        return Action.CHECKPOINT if progress.step == 3 else None

    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, inputs, cut, kill)
    assert list(cut.iterdir()) == []
    assert checkpoint_folder(cut).is_dir()
    seen: list[int] = []
    run(RECIPE, inputs, cut, lambda progress: seen.append(progress.step))
    assert seen[0] == 4
    name = "adapter_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert without_measured(cut / "training.json") == without_measured(whole / "training.json")


def test_a_base_held_in_bfloat16_gives_an_adapter_in_float32(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model, "has_bfloat16", lambda device: True
    )  # emulated where it is not: slow, and the same
    output = fresh(tmp_path)
    metrics = run(RECIPE | {"precision": "bfloat16"}, inputs, output)
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]
    tensors = load_file(output / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_bfloat16_is_refused_where_it_would_be_emulated(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: {"avx2": True, "avx512_bf16": False, "amx_bf16": False},
    )
    with pytest.raises(
        SetupError, match=r"precision: bfloat16 on a processor without.*set `precision: float32`"
    ):
        run(RECIPE | {"precision": "bfloat16"}, inputs, fresh(tmp_path))


def test_a_bfloat16_base_is_trained_in_float32_on_any_processor(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    base = fresh(tmp_path, "published")
    shutil.copytree(inputs["base"], base, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    metrics = run(RECIPE, {**inputs, "base": base}, fresh(tmp_path))
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]


@pytest.mark.parametrize("kind", ["qwen2", "phi3", "gemma2", "mistral"])
def test_other_architectures_train_through_the_same_code(kind: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    train_tokenizer(base, vocabulary=400)
    make_model(
        base, kind, **SMALL, **({"head_dim": 16, "sliding_window": 16} if kind == "gemma2" else {})
    )
    write_dataset(tmp_path / "dataset")
    metrics = run(RECIPE, {"base": base, "dataset": tmp_path / "dataset"}, fresh(tmp_path))
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]


def test_records_beyond_max_tokens_are_left_out_and_counted(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with (inputs["dataset"] / "train.jsonl").open("a") as file:
        messages = [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "because " * 200},
        ]
        file.write(json.dumps({"id": "f" * 16, "messages": messages, "topic": None}) + "\n")
    metrics = run(RECIPE, inputs, fresh(tmp_path))
    assert metrics["records_too_long"] == 1
    assert metrics["training_records"] == 12


def test_a_record_longer_than_the_models_positions_is_an_error(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    make_model(inputs["base"], "llama", **SMALL, max_position_embeddings=16)
    with pytest.raises(
        TrainingError,
        match=r"train.jsonl line 1 \(record 0{16}\): \d+ tokens.*positions for 16: set data\.max_tokens to 16",
    ):
        run(RECIPE, inputs, fresh(tmp_path))


def test_nothing_to_learn_from_is_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="zero trainable tokens"):
        run(RECIPE | {"max_tokens": 5}, inputs, fresh(tmp_path))


def test_an_adapter_that_did_not_move_is_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    still = RECIPE | {"training": RECIPE["training"] | {"learning_rate": 0.0}}
    with pytest.raises(TrainingError, match="kitchen: the adapter did not move"):
        run(still, inputs, fresh(tmp_path))


def test_targets_that_the_base_lacks_are_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"lora\.targets"):
        run(RECIPE | {"lora": RECIPE["lora"] | {"targets": ["c_attn"]}}, inputs, fresh(tmp_path))


def test_a_base_without_tokenizer_is_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["base"] / "tokenizer.json").unlink()
    with pytest.raises(TrainingError, match="has no tokenizer"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_a_base_without_chat_template_is_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["base"] / "chat_template.jinja").unlink()
    with pytest.raises(TrainingError, match="no chat template"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_a_base_without_weights_is_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["base"] / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="no base that can be loaded"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_damaged_weights_are_an_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = inputs["base"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="no base that can be loaded"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_weights_that_run_code_are_not_loaded(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A pickle beside the configuration is no substitute for safetensors."""
    model = AutoModelForCausalLM.from_pretrained(inputs["base"])
    torch.save(model.state_dict(), inputs["base"] / "pytorch_model.bin")
    shutil.move(inputs["base"] / "model.safetensors", tmp_path / "elsewhere.safetensors")
    with pytest.raises(TrainingError, match="no base that can be loaded"):
        run(RECIPE, inputs, fresh(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from meetara_build.errors import SetupError
    from meetara_build.training.model import load_model

    with pytest.raises(SetupError, match=r"torch sees none here.*hardware: cpu"):
        load_model(tmp_path, torch.float32, "cuda")
