"""adapter: a LoRA adapter for the base, trained on the dataset's answers, the best one by
validation loss."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from meetara_build.errors import UnmovedError
from meetara_build.stages.adapter import records
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics, checkpoint_folder
from meetara_build.training.computation import Prepare
from meetara_build.training.held import open_base
from meetara_build.training.kernels.lora import ADAPTER, attach, begin_from, has_changed
from meetara_build.training.loop import prepare_model, train
from meetara_build.training.model import load_tokenizer, position_limit, read_model
from meetara_build.training.precision import DTYPES
from meetara_build.training.race import race
from meetara_build.training.settings import History, Observer, Settings
from meetara_build.training.slots.joining import Sharing, describe_company

WEIGHTS = "adapter_model.safetensors"
NOT_SETTINGS = {"warm_start", "joint", "topic_weights", "observers"}
"""Keys of ``training`` that say what is trained on, from where, and who watches."""


def run(
    recipe: AdapterRecipe, inputs: Inputs, output: Path, observe: Observer | None = None
) -> Metrics:
    """Train and write adapter_model.safetensors, adapter_config.json, training.json and
    records.jsonl.

    The frozen base is held in ``recipe.precision``, the adapter and its optimizer always in
    float32.

    Args:
        inputs: base and dataset folders; ``start``, that of the base's common start, to begin
            from; as ``joint/NAME`` those of the neighbours whose training records are learnt too;
            the file ``warm_start``, another adapter's weights to race against a cold start. The
            last three if there are any.
        observe: called after each step, see training.settings.

    Raises:
        TrainingError: nothing to learn from, a base that cannot be used, a loss that is not finite,
            or an adapter that did not move.
    """
    base, dtype = inputs["base"], DTYPES[recipe.precision]
    shares = recipe.shared_slots > 1
    model, tokenizer = (
        (read_model(base, dtype), load_tokenizer(base))
        if shares
        else open_base(base, dtype, recipe.device, whole=recipe.lora.dora)
    )
    learnt = records.read(recipe, inputs, tokenizer, position_limit(model))
    adapted = attach(model, recipe.lora.model_dump(), recipe.seed)
    folder = checkpoint_folder(output)
    if "start" in inputs:
        begin_from(adapted, inputs["start"] / WEIGHTS)
    sharing = share(recipe, base, learnt) if shares else None
    prepare = sharing.prepare if sharing else prepare_model
    history, raced = fit(
        adapted, learnt, settings_of(recipe), inputs.get("warm_start"), folder, observe, prepare
    )
    if not has_changed(adapted):
        raise UnmovedError(
            f"{recipe.domain}: the adapter did not move: raise training.learning_rate or "
            "training.epochs"
        )
    save_adapter(adapted, recipe.base, output)
    company = _describe_company(recipe, sharing)
    metrics = {**_metrics(history), **learnt.counts(), **raced, **company}
    history = replace(history, computed={**history.computed, **company})
    device = sharing.device_name if sharing else recipe.device
    report = {
        "curve": history.curve,
        **metrics,
        "actions": history.actions,
        MEASURED: collect_measured(history, device),
    }
    (output / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = [json.dumps(line) + "\n" for line in learnt.list_losses(history.losses)]
    (output / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return metrics


def settings_of(recipe: AdapterRecipe) -> Settings:
    """How a recipe has the adapter trained."""
    return Settings(
        seed=recipe.seed,
        loss_on_prompt=recipe.loss_on_prompt,
        checkpoint_seconds=recipe.checkpoint_seconds,
        **recipe.training.model_dump(exclude=NOT_SETTINGS),
    )


def share(recipe: AdapterRecipe, base: Path, learnt: records.Records) -> Sharing:
    """How a recipe has the adapter trained beside others."""
    return Sharing(
        base,
        recipe.precision,
        recipe.device,
        recipe.lora.model_dump(),
        recipe.threads,
        recipe.slots,
        [*learnt.training, *learnt.validation],
    )


def _describe_company(recipe: AdapterRecipe, sharing: Sharing | None) -> Metrics:
    """Who may be in a pass with this training, where a machine has slots."""
    if sharing is not None:
        return {**sharing.describe()}
    return {**describe_company(recipe.reason_alone)} if recipe.slots > 1 else {}


def fit(
    adapted: PeftModel,
    learnt: records.Records,
    settings: Settings,
    warm_start: Path | None,
    folder: Path,
    observe: Observer | None,
    prepare: Prepare = prepare_model,
) -> tuple[History, Metrics]:
    """Train, from the better start where there are two; what happened, and what the race showed."""
    if warm_start is None:
        history = train(
            adapted, learnt.training, learnt.validation, settings, folder, observe, prepare
        )
        return history, {}

    def warm() -> None:
        begin_from(adapted, warm_start)

    if not learnt.validation:  # nothing to judge by: it is the person's word that counts
        warm()
        return train(adapted, learnt.training, [], settings, folder, observe, prepare), {}
    history, outcome = race(
        adapted, warm, learnt.training, learnt.validation, settings, folder, observe, prepare
    )
    return history, {
        "warm_start_won": outcome.warm_won,
        "warm_start_loss": outcome.warm if math.isfinite(outcome.warm) else None,
        "cold_start_loss": outcome.cold if math.isfinite(outcome.cold) else None,
        "race_steps": outcome.steps,
    }


def save_adapter(model: PeftModel, base_name: str, output: Path) -> None:
    """PEFT's own two files, in an order and with values that are the same on every machine."""
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    plain = {name: tensors[name].detach().float().cpu().contiguous() for name in sorted(tensors)}
    save_file(plain, output / WEIGHTS, metadata={"format": "pt"})
    config: dict[str, Any] = model.peft_config[ADAPTER].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (output / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Sequence[Any] | str:
    """Sets as sorted lists, enumerations as their value."""
    return (
        sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))
    )


def _metrics(history: History) -> Metrics:
    return {
        "steps": len(history.curve),
        "best_step": history.best_step,
        "stopped_early": history.stopped_early,
        "actions": len(history.actions),
        "micro_batch_tokens": history.micro_batch_tokens,
        "tokens": history.tokens,
        "completion_tokens": history.completion_tokens,
        "validation_loss_before": history.validation_before,
        "validation_loss_after": history.validation_after,
    }


def collect_measured(history: History, device: str) -> dict[str, Any]:
    """What differs from run to run: seconds, memory, speeds."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "seconds": history.seconds,
        "cpu_seconds": history.cpu_seconds,
        "completion_tokens_per_second": history.completion_tokens / history.seconds,
        "completion_tokens_per_cpu_second": history.completion_tokens / history.cpu_seconds,
        "peak_memory_bytes": history.peak_memory_bytes,
        "computed": history.computed,
    }
