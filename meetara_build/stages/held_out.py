"""Held-out records through GGUF files: what files are scored on, and the loss of one."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError, DataError
from meetara_build.llama_cpp.model import Floats, Model, Session
from meetara_build.stages.types import Inputs
from meetara_build.training.chat import Encoded, encode, read_records

GENERATED = 16
"""Tokens generated to tell how fast a file answers."""
BASELINE = "baseline.json"
"""What the base's own file scores."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out records, and as tokens, cut to the context and whole; and how many there are.

    ``context`` is the longest text in tokens that the files were made for.
    """

    records: list[dict[str, Any]]
    texts: list[Encoded]
    whole: list[Encoded]
    counts: dict[str, int]
    context: int
    tokenizer: PreTrainedTokenizerBase


@dataclass
class Runner:
    """One GGUF file, perhaps with an adapter, and what was measured of it so far."""

    path: Path
    model: Model
    load_seconds: float
    lora: Path | None = None
    session: Session | None = None
    decode_seconds: float = 0.0
    loss_sum: float = 0.0
    by_topic: dict[str, float] = field(default_factory=dict)
    by_record: dict[str, float] = field(default_factory=dict)
    answer_seconds: float = 0.0

    @classmethod
    def open(cls, name: str, path: Path, lora: Path | None = None) -> Self:
        """Open a file, on which an adapter is used if there is one.

        Raises:
            ArtifactError: one of them is not there, or llama.cpp cannot load the model.
        """
        started = time.perf_counter()
        for file in (path, *([lora] if lora else [])):
            if not file.is_file():
                raise ArtifactError(
                    f"{file.parent.name}/{file.name}: no such file for {name}. Build the "
                    f"{'quantize' if file.parent.name == 'quantized' else 'gguf'} stage again."
                )
        return cls(path, Model(path), time.perf_counter() - started, lora)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def start(self, held_out: HeldOut, threads: int) -> Session:
        """Make a session, in which a beginning that texts share is read once."""
        started = time.perf_counter()
        longest = max(len(text.ids) for text in held_out.texts) + GENERATED
        self.session = self.model.session(longest, threads=threads, lora=self.lora)
        self.load_seconds += time.perf_counter() - started
        return self.session

    def stream(self, text: Encoded) -> Iterator[Floats]:
        """Logits for the tokens of the text's completions, piece by piece; the time is taken."""
        assert self.session is not None
        pieces = self.session.stream(text.ids, [*text.mask[1:], False])
        while True:
            started = time.perf_counter()
            piece = next(pieces, None)
            self.decode_seconds += time.perf_counter() - started
            if piece is None:
                return
            yield piece

    def add(
        self, record: Mapping[str, Any], logits: Floats, targets: npt.NDArray[np.int64]
    ) -> None:
        """Count the loss of a record's tokens that were said, in nats."""
        nats, topic = sum_losses(logits, targets), record.get("topic")
        self.loss_sum += nats
        self.by_record[record["id"]] = self.by_record.get(record["id"], 0.0) + nats
        if topic is not None:
            self.by_topic[topic] = self.by_topic.get(topic, 0.0) + nats

    def figures(self, tokens: int) -> dict[str, Any]:
        """Loss, perplexity and size."""
        loss = self.loss_sum / tokens
        return {
            "loss": round_figure(loss),
            "perplexity": round_figure(math.exp(loss)),
            "bytes": sum(path.stat().st_size for path in (self.path, self.lora) if path),
        }

    def speeds(self) -> dict[str, float]:
        """Seconds to load, tokens read in a second, and CPU-seconds that answers took."""
        assert self.session is not None
        return {
            "answer_cpu_seconds": round(self.answer_seconds, 2),
            "load_seconds": round(self.load_seconds, 4),
            "prompt_tokens_per_second": round(
                self.session.decoded / max(self.decode_seconds, 1e-9), 1
            ),
        }

    def time_answer(self, text: Encoded) -> dict[str, float]:
        """Tokens written in a second, one after the other, in answer to a text's first question."""
        assert self.session is not None
        prompt = text.ids[: max(1, text.mask.index(True))]
        self.session.generate(prompt, 1)  # reads the question, which is kept
        before, started = self.session.decoded, time.perf_counter()
        self.session.generate(prompt, GENERATED)
        seconds = max(time.perf_counter() - started, 1e-9)
        return {"generated_tokens_per_second": round((self.session.decoded - before) / seconds, 1)}


def read_held_out(
    inputs: Inputs,
    models: dict[str, Runner],
    context: int | None,
    max_records: int | None,
) -> HeldOut:
    """The held-out records of ``dataset``, as ``base``'s tokenizer writes them.

    Raises:
        ArtifactError: a model's vocabulary is not the base's.
        DataError: no record has an answer that fits into the context.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        inputs["base"], local_files_only=True
    )
    first = next(iter(models.values())).model.n_vocab
    for name, runner in models.items():
        own = runner.model.n_vocab
        if own != first or len(tokenizer) > own:
            raise ArtifactError(
                f"{runner.path.name}: {own} tokens, but the base's tokenizer has {len(tokenizer)} "
                f"and the first file {first}. Build {name} again from the same base."
            )
    trained = min(runner.model.trained_context for runner in models.values())
    limit = max(2, min(context or trained, trained))
    test = inputs["dataset"] / "test.jsonl"
    records = list(read_records(test))[:max_records]
    whole = [encode(tokenizer, record["messages"]) for record in records]
    cut = [Encoded(text.ids[:limit], text.mask[:limit]) for text in whole]
    answered = [at for at, text in enumerate(cut) if text.completion_tokens]
    texts = [cut[at] for at in answered]
    if not texts:
        raise DataError(
            f"{test.name}: none of {len(records)} held-out records has an answer within {limit} "
            "tokens. Add shorter records, or raise data.max_tokens."
        )
    counts = {
        "records": len(texts),
        "tokens": sum(text.completion_tokens for text in texts),
        "truncated": sum(len(text.ids) > limit for text in whole),
        "skipped": len(records) - len(texts),
    }
    kept = [records[at] for at in answered]
    return HeldOut(kept, texts, [whole[at] for at in answered], counts, trained, tokenizer)


def find_targets(text: Encoded) -> npt.NDArray[np.int64]:
    """The tokens of a text's completions."""
    said = [token for token, is_said in zip(text.ids[1:], text.mask[1:], strict=True) if is_said]
    return np.array(said, np.int64)


def count_topics(held_out: HeldOut) -> dict[str, int]:
    """Completion tokens of each topic that the records name."""
    found: dict[str, int] = {}
    for text, record in zip(held_out.texts, held_out.records, strict=True):
        if (topic := record.get("topic")) is not None:
            found[topic] = found.get(topic, 0) + text.completion_tokens
    return dict(sorted(found.items()))


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities of each row, shape (positions, vocabulary); sums are taken in float64."""
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    totals = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    shifted -= np.log(totals).astype(np.float32)
    return shifted


def sum_losses(logits: Floats, targets: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Negative log-likelihood of a token in each row, summed, in nats."""
    largest = logits.max(axis=1, keepdims=True)
    totals = np.exp(logits - largest).sum(axis=1, dtype=np.float64)
    wanted = (logits[np.arange(len(targets)), targets] - largest[:, 0]).astype(np.float64)
    return float((np.log(totals) - wanted).sum())


def write_figures(path: Path, report: dict[str, Any]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def round_figure(figure: float) -> float:
    """Six digits: what float32 arithmetic can vouch for."""
    return float(f"{figure:.6g}")
