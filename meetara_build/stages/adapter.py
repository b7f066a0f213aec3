"""adapter: a LoRA adapter for the base, trained on the dataset's answers, the best one by validation loss."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from meetara_build.errors import DataError, TrainingError
from meetara_build.stages.types import MEASURED, Inputs, Metrics, Recipe, checkpoint_folder
from meetara_build.training.chat import Encoded, encode, read_records
from meetara_build.training.loop import train
from meetara_build.training.lora import ADAPTER, attach, begin_from, moved
from meetara_build.training.model import load_model, load_tokenizer, position_limit
from meetara_build.training.settings import History, Observer, Settings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(recipe: Recipe, inputs: Inputs, output: Path, observe: Observer | None = None) -> Metrics:
    """Train and write adapter_model.safetensors, adapter_config.json and training.json.

    The frozen base is held in ``recipe["precision"]``, the adapter and its optimizer always in float32.

    Args:
        recipe: domain, seed, threads, device, precision, loss_on_prompt, max_tokens, lora, training.
        inputs: base and dataset folders; the file ``warm_start``, another adapter's weights to begin from, if there is one.
        observe: called after each step, see training.settings.

    Raises:
        TrainingError: nothing to learn from, a base that cannot be used, a loss that is not finite, or an adapter
            that did not move.
    """
    base = inputs["base"]
    tokenizer = load_tokenizer(base)
    model = load_model(base, DTYPES[recipe["precision"]], recipe["device"])
    limit = position_limit(model)
    training, long = _encode(tokenizer, inputs["dataset"] / "train.jsonl", recipe["max_tokens"], limit)
    validation, long_validation = _encode(
        tokenizer, inputs["dataset"] / "validation.jsonl", recipe["max_tokens"], limit
    )
    adapted = attach(model, recipe["lora"], recipe["seed"])
    if "warm_start" in inputs:
        begin_from(adapted, inputs["warm_start"])
    settings = Settings(
        seed=recipe["seed"],
        loss_on_prompt=recipe["loss_on_prompt"],
        **{key: value for key, value in recipe["training"].items() if key != "warm_start"},
    )
    history = train(adapted, training, validation, settings, checkpoint_folder(output), observe)
    if not moved(adapted):
        raise TrainingError(
            f"{recipe['domain']}: the adapter did not move: raise training.learning_rate or training.epochs"
        )
    save_adapter(adapted, base.name, output)
    metrics = _metrics(history, len(training), len(validation), long + long_validation)
    report = {"curve": history.curve, **metrics, MEASURED: _measured(history, recipe["device"])}
    (output / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return metrics


def _encode(
    tokenizer: PreTrainedTokenizerBase, path: Path, max_tokens: int, positions: int | None
) -> tuple[list[Encoded], int]:
    """The records of at most ``max_tokens`` tokens, and how many longer ones are left out.

    Raises:
        TrainingError: a record within ``max_tokens`` is longer than the model's positions.
    """
    kept: list[Encoded] = []
    long = 0
    for line, record in enumerate(read_records(path), 1):
        try:
            encoded = encode(tokenizer, record["messages"])
        except DataError as fault:
            raise DataError(f"{path.name} line {line} (record {record.get('id')}): {fault}") from fault
        length = len(encoded.ids)
        if length > max_tokens:
            long += 1
        elif positions is not None and length > positions:
            raise TrainingError(
                f"{path.name} line {line} (record {record.get('id')}): {length} tokens, but the base has positions "
                f"for {positions}: set max_tokens to {positions} or less, or take another base"
            )
        else:
            kept.append(encoded)
    return kept, long


def save_adapter(model: PeftModel, base_name: str, output: Path) -> None:
    """PEFT's own two files, in an order and with values that are the same on every machine."""
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    plain = {name: tensors[name].detach().float().cpu().contiguous() for name in sorted(tensors)}
    save_file(plain, output / "adapter_model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = model.peft_config[ADAPTER].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (output / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Sequence[Any] | str:
    """Sets as sorted lists, enumerations as their value."""
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))


def _metrics(history: History, training: int, validation: int, long: int) -> Metrics:
    return {
        "training_records": training,
        "validation_records": validation,
        "records_too_long": long,
        "steps": len(history.curve),
        "best_step": history.best_step,
        "stopped_early": history.stopped_early,
        "tokens": history.tokens,
        "completion_tokens": history.completion_tokens,
        "validation_loss_before": history.validation_before,
        "validation_loss_after": history.validation_after,
    }


def _measured(history: History, device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "seconds": history.seconds,
        "cpu_seconds": history.cpu_seconds,
        "completion_tokens_per_second": history.completion_tokens / history.seconds,
        "completion_tokens_per_cpu_second": history.completion_tokens / history.cpu_seconds,
        "peak_memory_bytes": history.peak_memory_bytes,
    }
