"""What an adapter learns from: the domain's records, weighted by topic, and its neighbours'; and
what it showed of each."""

import statistics
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from meetara_build.errors import ConfigError, DataError, TooLongError, nearest
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.stages.types import Inputs, Metrics
from meetara_build.training.chat import Encoded, encode_all, read_records

JOINT = "joint/"
"""How the inputs that are neighbours' datasets are named."""


@dataclass(frozen=True)
class Learnt:
    """A record within the limits, and how often it comes in an epoch."""

    id: str
    topic: str | None
    encoded: Encoded
    times: int = 1


@dataclass(frozen=True)
class Records:
    """All the records of a training.

    Attributes:
        own: the domain's training records.
        neighbours: those of the domains that are learnt jointly.
        long: how many of all these and of the validation records are left out as too long (of
            neighbours' also those that the base's chat template cannot use).
    """

    own: list[Learnt]
    neighbours: list[Learnt]
    validation: list[Encoded]
    long: int

    @property
    def training(self) -> list[Encoded]:
        """What an epoch holds."""
        return [
            record.encoded for record in [*self.own, *self.neighbours] for _ in range(record.times)
        ]

    def counts(self) -> Metrics:
        """How many records there are of each kind; each once, however often it comes."""
        joint = {"joint_records": len(self.neighbours)} if self.neighbours else {}
        return {
            "training_records": len(self.own),
            **joint,
            "validation_records": len(self.validation),
            "records_too_long": self.long,
        }

    def list_losses(self, losses: Sequence[Sequence[float | None]]) -> Iterator[dict[str, Any]]:
        """The domain's own records, each with its mean loss in every epoch in which it came by."""
        at = 0
        for record in self.own:
            by_epoch = zip(*losses[at : at + record.times], strict=True)
            at += record.times
            came_by = [[loss for loss in epoch if loss is not None] for epoch in by_epoch]
            means = [round(statistics.fmean(several), 6) for several in came_by if several]
            yield {"id": record.id, "topic": record.topic, "losses": means}


def read(
    recipe: AdapterRecipe, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, positions: int | None
) -> Records:
    """The records of at most ``max_tokens`` tokens. Neighbours' records that the domain has itself,
    held out or not, are left out.

    Raises:
        ConfigError: ``topic_weights`` names a topic that no training record has.
        TooLongError: a record within ``max_tokens`` is longer than the model's positions.
    """
    reader, dataset = _Reader(tokenizer, recipe.max_tokens, positions), inputs["dataset"]
    neighbours = sorted(name for name in inputs if name.startswith(JOINT))
    own = reader.read(dataset / "train.jsonl")
    validation = reader.read(dataset / "validation.jsonl")
    known = _ids(dataset, "train", "validation", "test") if neighbours else set()
    joint: list[Learnt] = []
    for name in neighbours:
        joint += reader.read(inputs[name] / "train.jsonl", known)
        known |= {record.id for record in joint}
    weights = recipe.training.topic_weights
    _refuse_unknown(weights, own, recipe.domain)
    weighted = [replace(record, times=weights.get(record.topic or "", 1)) for record in own]
    return Records(weighted, joint, [record.encoded for record in validation], reader.left_out)


def _ids(dataset: Path, *sides: str) -> set[str]:
    return {record["id"] for side in sides for record in read_records(dataset / f"{side}.jsonl")}


def _refuse_unknown(weights: Mapping[str, int], records: Iterable[Learnt], domain: str) -> None:
    topics = sorted({record.topic for record in records if record.topic})
    for topic in weights:
        if topic not in topics:
            raise ConfigError(
                f"{domain}: training.topic_weights: no training record has the topic "
                f"'{topic}'{nearest(topic, topics)}; name another, or remove it"
            )


class _Reader:
    """Reads records as tokens, and counts those that are left out."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, positions: int | None
    ) -> None:
        self.tokenizer, self.max_tokens, self.positions = tokenizer, max_tokens, positions
        self.left_out = 0

    def read(self, path: Path, known: Container[str] = ()) -> list[Learnt]:
        """A file's records but for those with a known id, those that are too long, and those that
        the base's chat template cannot use.

        Only a neighbour's data set, made for another base, holds such.
        """
        found = []
        lines = (
            (line, record)
            for line, record in enumerate(read_records(path), 1)
            if record["id"] not in known
        )
        records, again = tee(lines)
        encoded = encode_all(self.tokenizer, (record["messages"] for _, record in again))
        for (line, record), one in zip(records, encoded, strict=True):
            if isinstance(one, DataError) or len(one.ids) > self.max_tokens:
                self.left_out += 1
                continue
            if self.positions is not None and len(one.ids) > self.positions:
                raise TooLongError(
                    f"{path.name} line {line} (record {record['id']}): {len(one.ids)} tokens, but "
                    f"the base has positions for {self.positions}: set data.max_tokens to "
                    f"{self.positions} or less, or take another base"
                )
            found.append(Learnt(record["id"], record["topic"], one))
        return found
