"""What a domain's files are held to: the logits of base + adapter in float32, on a few texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from meetara_build.errors import ProofError
from meetara_build.llama_cpp.model import Floats, Model
from meetara_build.stages.gguf import proof
from meetara_build.training.chat import encode, read_records
from meetara_build.training.model import load_model

POSITIONS = 32
"""Tokens of each of three texts whose logits are compared: the start of a conversation, the end of
another, and tokens from all over the vocabulary. What is wrong with a file is wrong with all
positions: the whole vocabulary is looked at for each, and every layer works on each."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys by which configurations tell how many experts there are."""

Prompts = Sequence[list[int]]


class Reference(NamedTuple):
    """Texts as tokens, what base + adapter makes of them, and how that model is had again."""

    config: PretrainedConfig
    prompts: Prompts
    logits: list[Floats]
    load: Callable[[], nn.Module]

    def prove(self, label: str, ours: Sequence[Floats], bound: float) -> dict[str, float]:
        """Refuse logits that are further from base + adapter's than ``bound``.

        Raises:
            ProofError: with figure and bound.
        """
        both = (self.logits, ours)
        return prove_logits(
            label, "base + adapter", self.config, both, bound, partial(self._find_unstable, bound)
        )

    def _find_unstable(self, bound: float) -> npt.NDArray[np.bool_]:
        return proof.find_unstable(self.load(), self.prompts, self.logits, bound)


def find_prompts(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, dataset: Path, *sides: str
) -> Prompts:
    """Three short texts of a domain, the records from the first of these sides that has some.

    Raises:
        ProofError: there is no record.
    """
    for side in sides:
        records = list(islice(read_records(dataset / f"{side}.jsonl"), 2))
        if records:
            limit = min(POSITIONS, getattr(config, "max_position_embeddings", None) or POSITIONS)
            first, last = (encode(tokenizer, record["messages"]).ids for record in _two(records))
            anywhere = np.random.default_rng(0).integers(0, config.vocab_size, limit).tolist()
            return [list(first[:limit]), list(last[-limit:]), anywhere]
    raise ProofError("dataset: no record to compare logits on: give the domain some data")


def _two(records: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return records[0], records[-1]


def measure_reference(
    tokenizer: PreTrainedTokenizerBase, base: Path, adapter: Path, dataset: Path
) -> Reference:
    """The logits of base + adapter on texts of the training records."""

    def load() -> PeftModel:
        return PeftModel.from_pretrained(load_model(base, torch.float32), str(adapter)).eval()

    adapted = load()
    config = adapted.config.get_text_config()
    prompts = find_prompts(tokenizer, config, dataset, "train")
    logits = [proof.torch_logits(adapted, ids) for ids in prompts]
    return Reference(config, prompts, logits, load)


def prove_logits(
    label: str,
    reference: str,
    config: PretrainedConfig,
    both: tuple[Sequence[Floats], Sequence[Floats]],
    bound: float,
    find_unstable: Callable[[], npt.NDArray[np.bool_]] | None = None,
) -> dict[str, float]:
    """Refuse logits too far from those of the reference; what is special to the model is allowed
    for, or told.

    Raises:
        ProofError: with figure and bound.
    """
    theirs, ours = both
    window = getattr(config, "sliding_window", None)
    narrow = window is not None and any(window < len(logits) for logits in theirs)
    hint = (
        f"(config.json has a sliding_window of {window}, which llama.cpp may not apply.) "
        if narrow
        else ""
    )
    routed = any(getattr(config, key, None) for key in EXPERTS)
    pairs = zip(theirs, ours, strict=True)
    return proof.prove_logits(
        label, reference, pairs, bound, routed=routed, hint=hint, find_unstable=find_unstable
    )


def run_prompts(
    model: Model, prompts: Prompts, threads: int, lora: Path | None = None
) -> list[Floats]:
    """The logits that llama.cpp gives of some texts, an adapter added if there is one."""
    longest = max(map(len, prompts))
    with model.session(longest, threads=threads, exact=True, lora=lora) as session:
        return [session.logits(ids) for ids in prompts]
