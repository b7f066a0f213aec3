"""Records measured in the tokens of the base that will learn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import DataError
from meetara_build.stages.dataset.records import Record
from meetara_build.training.chat import encode_all

NO_LIMIT = 10**30
"""Records are measured to leave out those that are too long: no warning of the library's is
needed."""


@dataclass(frozen=True)
class Length:
    """Tokens of one conversation; ``completion`` are the assistant's."""

    whole: int
    completion: int

    @property
    def prompt(self) -> int:
        """Tokens that are not the assistant's."""
        return self.whole - self.completion


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer.

    Raises:
        DataError: the folder holds none, or it has no chat template.
    """
    if not (base / "tokenizer_config.json").is_file() and not (base / "tokenizer.json").is_file():
        raise DataError(
            f"{base.name}: the base's folder holds no tokenizer: download the base whole"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        message = (
            f"{base.name}: the base's tokenizer cannot be loaded: {error}: download the base anew"
        )
        raise DataError(message) from None
    if not tokenizer.chat_template:
        raise DataError(
            f"{base.name}: the base's tokenizer has no chat template: name one in the base's file"
        )
    tokenizer.model_max_length = NO_LIMIT
    return tokenizer


def lengths(tokenizer: PreTrainedTokenizerBase, records: Sequence[Record]) -> list[Length | str]:
    """The length of each record, or why the base's chat template cannot use it."""
    encoded = encode_all(tokenizer, (record.messages for record in records))
    return [
        str(one) if isinstance(one, DataError) else Length(len(one.ids), sum(one.mask))
        for one in encoded
    ]


def quantiles(measured: Sequence[Length]) -> dict[str, dict[str, int]]:
    """p5, p50, p95 and the largest of prompt, completion and whole."""
    figures: dict[str, dict[str, int]] = {}
    for part in ("prompt", "completion", "whole"):
        values: Any = np.array([getattr(length, part) for length in measured])
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), method="nearest")
        figures[part] = {
            "p5": int(low),
            "p50": int(middle),
            "p95": int(high),
            "max": int(values.max()),
        }
    return figures
