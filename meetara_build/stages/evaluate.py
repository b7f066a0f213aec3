"""The evaluate stage: what the GGUF files are worth, on records that no training has seen."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.model import Floats
from meetara_build.outside import parse_json
from meetara_build.setup.check import check_llama
from meetara_build.stages.answer_lines import ANSWERS, Said, read_lines, write_lines
from meetara_build.stages.asking import (
    Asked,
    ask,
    choose_questions,
    describe_answers,
    measure_choices,
    take_answers,
)
from meetara_build.stages.held_out import (
    BASELINE,
    HeldOut,
    Runner,
    count_topics,
    find_targets,
    log_softmax,
    read_held_out,
    round_figure,
    write_figures,
)
from meetara_build.stages.recipes.evaluate import EvaluateRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics
from meetara_build.training.chat import Encoded

REFERENCE = "F16"

Choice = npt.NDArray[np.bool_]
"""Which positions are compared with F16's."""


def run(recipe: EvaluateRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Measure every variant on ``test.jsonl`` through llama.cpp; write ``evaluation.json``, and the
    answers of base and variants to some of the prompts, ``answers.jsonl``.

    Inputs: ``gguf`` (folder of the variants), or where the domain is its adapter alone ``lora``
    (its folder), ``base_gguf`` and ``quantized`` (the base's files); ``baseline`` (the base's
    figures on the same records), ``dataset``, ``base`` (Hugging Face folder, for its tokenizer and
    chat template).

    Loss is the mean negative log-likelihood of a completion's token in nats, over all records;
    perplexity its exponential. Divergence is KL(F16 || variant) per completion token in nats, as
    llama.cpp's ``llama-perplexity --kl-divergence`` has it, over ``kl_tokens`` of the tokens, spread
    evenly over all. ``by_topic`` has F16's loss and completion tokens for each topic that the
    records name, ``base_by_topic`` the base's loss; ``by_record`` F16's loss and tokens for each
    record, by its id. ``choices`` says of base and variants how often
    each found the right answer likelier than three others of the domain.

    Raises:
        ArtifactError: a file is missing or does not fit the base, or the base's figures are of
            other records.
        DataError: no record has a completion that fits into the context.
        SetupError: llama-cpp-python is not the version this package was proved with.
    """
    check_llama()
    lora = inputs["lora"] / f"{recipe.domain}-lora.gguf" if recipe.on_base else None
    with ExitStack() as stack:
        runners = {
            name: stack.enter_context(Runner.open(name, path, lora))
            for name, path in _list_files(recipe, inputs).items()
        }
        held_out = read_held_out(inputs, runners, recipe.context, recipe.max_records)
        baseline = _read_baseline(inputs, held_out)
        for runner in runners.values():
            stack.enter_context(runner.start(held_out, recipe.threads))
        compared = _compare(runners, held_out, choose(held_out.counts["tokens"], recipe.kl_tokens))
        report = _report(runners, compared, held_out, baseline)
        questions = choose_questions(recipe.answers, held_out)
        answers = _gather_answers(recipe, inputs, runners, held_out, questions.asked)
        report["prompts"] = {"asked": len(questions.asked), "passed_over": questions.passed_over}
        report["choices"] = {name: measure_choices(said) for name, said in answers.items()}
        speeds = {
            name: {**runner.speeds(), **runner.time_answer(held_out.texts[0])}
            for name, runner in runners.items()
        }
        report[MEASURED] = {**baseline.get(MEASURED, {}), **speeds}
    write_figures(output / "evaluation.json", report)
    write_lines(output / ANSWERS, describe_answers(questions.asked, answers))
    variants = report["variants"]
    return {
        "base_loss": report["base"]["loss"],
        "losses": {name: figures["loss"] for name, figures in variants.items()},
        "bytes": {name: figures["bytes"] for name, figures in variants.items()},
        "improvement": report["improvement"],
        "kl": {name: figures["kl_mean"] for name, figures in variants.items() if name != REFERENCE},
        "by_topic": report["by_topic"],
        "base_by_topic": report["base_by_topic"],
        "choices": report["choices"],
    }


def _gather_answers(
    recipe: EvaluateRecipe,
    inputs: Inputs,
    runners: dict[str, Runner],
    held_out: HeldOut,
    asked: list[Asked],
) -> dict[str, list[Said]]:
    """The base's answers, and those of each variant."""
    lines = read_lines(inputs["baseline"] / ANSWERS, "baseline")
    of_base = take_answers(lines, asked, f"baseline/{ANSWERS}")
    return {"base": of_base} | {
        name: ask(runner, asked, recipe.answers, held_out.tokenizer, threads=recipe.threads)
        for name, runner in runners.items()
    }


def _list_files(recipe: EvaluateRecipe, inputs: Inputs) -> dict[str, Path]:
    """The variants by type, F16 first."""
    names = [REFERENCE, *(quant for quant in recipe.quants if quant != REFERENCE)]
    if not recipe.on_base:
        return {name: inputs["gguf"] / f"{recipe.domain}-{name}.gguf" for name in names}
    return {
        name: inputs["base_gguf" if name == REFERENCE else "quantized"]
        / f"{recipe.base}-{name}.gguf"
        for name in names
    }


@dataclass
class _Compared:
    """How far a variant was from F16 so far."""

    divergences: list[npt.NDArray[np.float64]] = field(default_factory=list)
    agreed: int = 0

    def add(self, reference: Floats, weights: Floats, ours: Floats) -> None:
        self.divergences.append(divergence(reference, weights, ours))
        self.agreed += int((ours.argmax(axis=1) == reference.argmax(axis=1)).sum())

    def figures(self) -> dict[str, float]:
        each = np.concatenate(self.divergences)
        return {
            "kl_mean": round_figure(float(each.mean())),
            "kl_p99": round_figure(float(np.quantile(each, 0.99))),
            "top_token_agreement": round_figure(self.agreed / len(each)),
        }


def choose(tokens: int, wanted: int | None) -> Choice:
    """So many of all counted tokens, spread evenly; all where no fewer are wanted."""
    chosen = np.zeros(tokens, np.bool_)
    count = min(tokens, wanted or tokens)
    chosen[np.arange(count) * tokens // count] = True
    return chosen


def _read_baseline(inputs: Inputs, held_out: HeldOut) -> dict[str, Any]:
    path = inputs["baseline"] / BASELINE
    if not path.is_file():
        raise ArtifactError(f"baseline/{BASELINE}: no such file. Build the baseline stage again.")
    baseline: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    if any(baseline.get(key) != count for key, count in held_out.counts.items()):
        raise ArtifactError(
            f"baseline/{BASELINE}: the base was measured on other records than these. Build the "
            "baseline stage again."
        )
    return baseline


def _compare(runners: dict[str, Runner], held_out: HeldOut, chosen: Choice) -> dict[str, _Compared]:
    """Put every record through every file."""
    compared = {name: _Compared() for name in runners if name != REFERENCE}
    done = 0
    for text, record in zip(held_out.texts, held_out.records, strict=True):
        count = text.completion_tokens
        _score(text, record, runners, compared, chosen[done : done + count])
        done += count
    return compared


def _score(
    text: Encoded,
    record: Mapping[str, Any],
    runners: dict[str, Runner],
    compared: dict[str, _Compared],
    chosen: Choice,
) -> None:
    """Add one record to every file's figures; logits live only for one piece of the text."""
    targets, start = find_targets(text), 0
    for pieces in zip(*(runner.stream(text) for runner in runners.values()), strict=True):
        by_name, end = dict(zip(runners, pieces, strict=True)), start + len(pieces[0])
        for name, runner in runners.items():
            runner.add(record, by_name[name], targets[start:end])
        picked = chosen[start:end]
        if picked.any():
            reference = log_softmax(by_name[REFERENCE][picked])
            weights = np.exp(reference)
            for name, figures in compared.items():
                figures.add(reference, weights, log_softmax(by_name[name][picked]))
        start = end


def divergence(reference: Floats, weights: Floats, ours: Floats) -> npt.NDArray[np.float64]:
    """KL(reference || ours) of each row in nats, from log-probabilities and ``exp(reference)``;
    never below 0."""
    gap = reference - ours
    gap *= weights
    sums: npt.NDArray[np.float64] = gap.sum(axis=1, dtype=np.float64)
    return sums.clip(min=0.0)


def _report(
    runners: dict[str, Runner],
    compared: dict[str, _Compared],
    held_out: HeldOut,
    baseline: dict[str, Any],
) -> dict[str, Any]:
    tokens = held_out.counts["tokens"]
    figures = {name: runner.figures(tokens) for name, runner in runners.items()}
    for name, one in compared.items():
        figures[name] |= one.figures()
    ours, base = figures[REFERENCE]["loss"], baseline["base"]["loss"]
    topics = runners[REFERENCE].by_topic
    found = next(iter(compared.values()), None)
    return {
        **held_out.counts,
        "kl_tokens": sum(map(len, found.divergences)) if found else 0,
        "base": baseline["base"],
        "variants": figures,
        "improvement": round_figure((base - ours) / base),
        "by_topic": {
            topic: [round_figure(topics[topic] / count), count]
            for topic, count in count_topics(held_out).items()
        },
        "base_by_topic": baseline["base_by_topic"],
        "by_record": {
            record["id"]: [
                round_figure(runners[REFERENCE].by_record[record["id"]] / text.completion_tokens),
                text.completion_tokens,
            ]
            for text, record in zip(held_out.texts, held_out.records, strict=True)
        },
    }
