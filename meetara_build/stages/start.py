"""start: an adapter trained once a base on the pinned sample, from which its domains' trainings
begin.

Much of what a domain's training gains is the manner of the answers, which all domains share. What
is learnt once of it need not be learnt in each domain: ``python -m bench.start`` shows how much.
"""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from meetara_build.errors import DataError
from meetara_build.stages.adapter import collect_measured, save_adapter
from meetara_build.stages.recipes.start import StartRecipe
from meetara_build.stages.sample import SAMPLE, read_sample
from meetara_build.stages.types import MEASURED, Inputs, Metrics, checkpoint_folder
from meetara_build.training.chat import Encoded, encode
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import train
from meetara_build.training.model import load_model, load_tokenizer, position_limit
from meetara_build.training.precision import DTYPES
from meetara_build.training.settings import Settings


def run(recipe: StartRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write adapter_model.safetensors, adapter_config.json and training.json: an adapter like a
    domain's, which PEFT loads.

    Nothing tells when it is best, for no held-out record may be seen: its epochs are its recipe's.

    Args:
        inputs: the base's folder, and the file ``sample``.

    Raises:
        DataError: a line of the sample is no conversation, or none is short enough.
        TrainingError: as ``training.loop.train``.
    """
    tokenizer = load_tokenizer(inputs["base"])
    model = load_model(inputs["base"], DTYPES[recipe.precision], recipe.device)
    limit = min(recipe.max_tokens, position_limit(model) or recipe.max_tokens)
    records, long = _read(inputs[SAMPLE], tokenizer, limit)
    adapted = attach(model, recipe.lora.model_dump(), recipe.seed)
    settings = Settings(
        epochs=recipe.epochs,
        batch_tokens=recipe.batch_tokens,
        micro_batch_tokens=recipe.micro_batch_tokens,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
    )
    history = train(adapted, records, [], settings, checkpoint_folder(output))
    save_adapter(adapted, recipe.base, output)
    metrics = {
        "steps": len(history.curve),
        "training_records": len(records),
        "records_too_long": long,
        "tokens": history.tokens,
        "training_loss": history.curve[-1][1],
    }
    measured = {MEASURED: collect_measured(history, recipe.device)}
    report = {"curve": history.curve, **metrics, **measured}
    (output / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return metrics


def _read(
    sample: Path, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[Encoded], int]:
    """The records of at most so many tokens, and how many are longer."""
    whole = [encode(tokenizer, messages) for messages in read_sample(sample)]
    records = [record for record in whole if len(record.ids) <= limit]
    if not records:
        raise DataError(
            f"{sample}: none of its {len(whole)} records has at most {limit} tokens; raise "
            "data.max_tokens, or set start.enabled to false"
        )
    return records, len(whole) - len(records)
