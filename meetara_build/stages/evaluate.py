"""The evaluate stage: what the GGUF files are worth, on records that no training has seen."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError, DataError
from meetara_build.llama_cpp.model import Floats, Model, Session
from meetara_build.setup.check import check_llama
from meetara_build.stages.recipes.evaluate import EvaluateRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics
from meetara_build.training.chat import Encoded, encode, read_records

BASE = "base"
REFERENCE = "F16"

GENERATED = 32
"""Tokens generated to tell how fast a file answers."""


def run(recipe: EvaluateRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Measure the base and every variant on ``test.jsonl`` through llama.cpp; write
    ``evaluation.json``.

    Inputs: ``gguf`` (folder of the variants), ``base_gguf`` (folder of the base's F16 file),
    ``dataset``, ``base`` (Hugging Face folder, for its tokenizer and chat template).

    Loss is the mean negative log-likelihood of a completion's token in nats, perplexity its
    exponential. Divergence is KL(F16 || variant) per completion token in nats, as llama.cpp's
    ``llama-perplexity --kl-divergence`` has it. ``by_topic`` has F16's loss and completion tokens
    for each topic that the records name, ``base_by_topic`` the base's loss.

    Raises:
        ArtifactError: a file is missing or does not fit the base.
        DataError: no record has a completion that fits into the context.
        SetupError: llama-cpp-python is not the version this package was proved with.
    """
    check_llama()
    files = _files(recipe, inputs)
    by_topic = _ByTopic()
    with ExitStack() as stack:
        runners = {
            name: stack.enter_context(_Runner.opened(name, path)) for name, path in files.items()
        }
        texts, topics, counts = _read_held_out(recipe, inputs, runners)
        longest = max(len(text.ids) for text in texts) + GENERATED
        for runner in runners.values():
            stack.enter_context(runner.start(longest, recipe.threads))
        for text, topic in zip(texts, topics, strict=True):
            before = [runners[name].loss_sum for name in (REFERENCE, BASE)]
            _score(text, runners)
            after = [runners[name].loss_sum for name in (REFERENCE, BASE)]
            by_topic.add(topic, np.subtract(after, before), text.completion_tokens)
        report = _report(runners, counts)
        report |= by_topic.means()
        report[MEASURED] = {name: runner.speeds(texts[0]) for name, runner in runners.items()}
    (output / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    variants = report["variants"]
    return {
        "base_loss": report[BASE]["loss"],
        "losses": {name: figures["loss"] for name, figures in variants.items()},
        "bytes": {name: figures["bytes"] for name, figures in variants.items()},
        "improvement": report["improvement"],
        "kl": {name: figures["kl_mean"] for name, figures in variants.items() if name != REFERENCE},
        "by_topic": report["by_topic"],
        "base_by_topic": report["base_by_topic"],
    }


@dataclass
class _Runner:
    """One GGUF file and what was measured of it so far."""

    path: Path
    model: Model
    load_seconds: float
    session: Session | None = None
    decode_seconds: float = 0.0
    decoded: int = 0
    loss_sum: float = 0.0
    divergences: list[npt.NDArray[np.float64]] = field(default_factory=list)
    agreed: int = 0

    @classmethod
    def opened(cls, name: str, path: Path) -> Self:
        started = time.perf_counter()
        if not path.is_file():
            raise ArtifactError(
                f"{path.parent.name}/{path.name}: no such file for {name}. Build the gguf stage "
                "again."
            )
        return cls(path, Model(path), time.perf_counter() - started)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def start(self, context: int, threads: int) -> Session:
        started = time.perf_counter()
        self.session = self.model.session(context, threads=threads)
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
                self.decoded += len(text.ids)
                return
            yield piece

    def speeds(self, text: Encoded) -> dict[str, float]:
        """Seconds to load, and tokens per second of reading and of answering."""
        assert self.session is not None
        prompt = text.ids[: max(1, text.mask.index(True))]
        started = time.perf_counter()
        said = self.session.generate(prompt, GENERATED)
        # The first token comes with the prompt, whose speed is measured apart.
        first = len(prompt) * self.decode_seconds / max(self.decoded, 1)
        seconds = max(time.perf_counter() - started - first, 1e-9)
        return {
            "load_seconds": round(self.load_seconds, 4),
            "prompt_tokens_per_second": round(self.decoded / max(self.decode_seconds, 1e-9), 1),
            "generated_tokens_per_second": round(len(said) / seconds, 1),
        }


@dataclass
class _ByTopic:
    """Nats of F16 and of the base, and completion tokens, of each topic so far."""

    nats: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def add(self, topic: str | None, nats: npt.NDArray[np.float64], tokens: int) -> None:
        if topic is not None:
            self.nats[topic] = self.nats.get(topic, np.zeros(2)) + nats
            self.tokens[topic] = self.tokens.get(topic, 0) + tokens

    def means(self) -> dict[str, Any]:
        means = {topic: self.nats[topic] / self.tokens[topic] for topic in sorted(self.nats)}
        return {
            "by_topic": {
                topic: [_round(ours), self.tokens[topic]] for topic, (ours, _) in means.items()
            },
            "base_by_topic": {topic: _round(base) for topic, (_, base) in means.items()},
        }


def _files(recipe: EvaluateRecipe, inputs: Inputs) -> dict[str, Path]:
    """The base's file and the variants', F16 first."""
    names = [REFERENCE, *(quant for quant in recipe.quants if quant != REFERENCE)]
    return {
        BASE: inputs["base_gguf"] / f"{recipe.base}-F16.gguf",
        **{name: inputs["gguf"] / f"{recipe.domain}-{name}.gguf" for name in names},
    }


def _read_held_out(
    recipe: EvaluateRecipe, inputs: Inputs, runners: dict[str, _Runner]
) -> tuple[list[Encoded], list[str | None], dict[str, int]]:
    """The held-out records as tokens, cut to the context, their topics, and how many there are."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        inputs["base"], local_files_only=True
    )
    for name, runner in runners.items():
        if (
            runner.model.n_vocab != runners[REFERENCE].model.n_vocab
            or len(tokenizer) > runner.model.n_vocab
        ):
            raise ArtifactError(
                f"{runner.path.name}: {runner.model.n_vocab} tokens, but the base's tokenizer has "
                f"{len(tokenizer)} and the F16 file {runners[REFERENCE].model.n_vocab}. Build "
                f"{name} again from the same base."
            )
    own = min(runner.model.trained_context for runner in runners.values())
    limit = max(2, min(recipe.context or own, own))
    test = inputs["dataset"] / "test.jsonl"
    records = list(read_records(test))[: recipe.max_records]
    whole = [encode(tokenizer, record["messages"]) for record in records]
    cut = [Encoded(text.ids[:limit], text.mask[:limit]) for text in whole]
    answered = [
        (text, record.get("topic"))
        for text, record in zip(cut, records, strict=True)
        if text.completion_tokens
    ]
    texts, topics = [text for text, _ in answered], [topic for _, topic in answered]
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
    return texts, topics, counts


def _score(text: Encoded, runners: dict[str, _Runner]) -> None:
    """Add one record to every file's figures; logits live only for one piece of the text."""
    targets = np.array(
        [token for token, said in zip(text.ids[1:], text.mask[1:], strict=True) if said]
    )
    start = 0
    for pieces in zip(*(runner.stream(text) for runner in runners.values()), strict=True):
        by_name = dict(zip(runners, pieces, strict=True))
        wanted = targets[start : start + len(pieces[0])]
        start += len(wanted)
        reference = log_softmax(by_name[REFERENCE])
        weights = np.exp(reference)
        for name, runner in runners.items():
            ours = reference if name == REFERENCE else log_softmax(by_name[name])
            runner.loss_sum -= float(ours[np.arange(len(wanted)), wanted].sum(dtype=np.float64))
            if name not in (BASE, REFERENCE):
                runner.divergences.append(divergence(reference, weights, ours))
                runner.agreed += int((ours.argmax(axis=1) == reference.argmax(axis=1)).sum())


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities of each row, shape (positions, vocabulary); sums are taken in float64."""
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    totals = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    shifted -= np.log(totals).astype(np.float32)
    return shifted


def divergence(reference: Floats, weights: Floats, ours: Floats) -> npt.NDArray[np.float64]:
    """KL(reference || ours) of each row in nats, from log-probabilities and ``exp(reference)``;
    never below 0."""
    gap = reference - ours
    gap *= weights
    sums: npt.NDArray[np.float64] = gap.sum(axis=1, dtype=np.float64)
    return sums.clip(min=0.0)


def _report(runners: dict[str, _Runner], counts: dict[str, int]) -> dict[str, Any]:
    figures = {name: _figures(runner, counts["tokens"]) for name, runner in runners.items()}
    base = figures.pop(BASE)
    loss = figures[REFERENCE]["loss"]
    return {
        **counts,
        BASE: base,
        "variants": figures,
        "improvement": _round((base["loss"] - loss) / base["loss"]),
    }


def _figures(runner: _Runner, tokens: int) -> dict[str, Any]:
    loss = runner.loss_sum / tokens
    figures = {
        "loss": _round(loss),
        "perplexity": _round(math.exp(loss)),
        "bytes": runner.path.stat().st_size,
    }
    if runner.divergences:
        each = np.concatenate(runner.divergences)
        figures["kl_mean"] = _round(float(each.mean()))
        figures["kl_p99"] = _round(float(np.quantile(each, 0.99)))
        figures["top_token_agreement"] = _round(runner.agreed / tokens)
    return figures


def _round(figure: float) -> float:
    """Six digits: what float32 arithmetic can vouch for."""
    return float(f"{figure:.6g}")
