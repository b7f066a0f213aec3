"""Small random models and records for the trainer's tests."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from meetara_build.training.chat import Encoded

VOCABULARY = 96
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "phi3": {"pad_token_id": 0},
    # A window shorter than the records, and soft caps low enough to matter.
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "mistral": {"sliding_window": 8},
}


def make_tiny(kind: str = "llama", **changes: Any) -> PreTrainedModel:
    """A random model of this architecture with weights large enough for every part of it to show in
    the logits."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**shape, **ARCHITECTURES.get(kind, {}), **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    return model.eval()


def make_records(count: int = 12, seed: int = 0, longest: int = 24) -> list[Encoded]:
    """Records of 4 to ``longest`` tokens, of which about the last half is the answer: an arithmetic
    sequence."""
    chance = random.Random(seed)
    records = []
    for _ in range(count):
        length, start, step = (
            chance.randint(4, longest),
            chance.randrange(VOCABULARY),
            chance.randint(1, 3),
        )
        ids = [(start + step * place) % VOCABULARY for place in range(length)]
        records.append(Encoded(ids, [place >= length // 2 for place in range(length)]))
    return records


def make_alike(count: int = 5, shared: int = 12, seed: int = 0) -> list[Encoded]:
    """Records that begin with the same tokens; every other answer begins right after them."""
    head = [(7 * place) % VOCABULARY for place in range(shared)]
    return [
        Encoded(head + one.ids, [False] * shared + [index % 2 == 0 or said for said in one.mask])
        for index, one in enumerate(make_records(count, seed))
    ]


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    return make_tiny


@pytest.fixture
def records() -> Callable[..., list[Encoded]]:
    return make_records


@pytest.fixture
def alike() -> Callable[..., list[Encoded]]:
    return make_alike


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)
