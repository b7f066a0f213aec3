"""The baseline stage: what the base scores on a domain's held-out records, measured once whatever
is trained on them."""

from pathlib import Path

from meetara_build.setup.check import check_llama
from meetara_build.stages.answer_lines import ANSWERS, write_lines
from meetara_build.stages.asking import ask, choose_questions, describe_answers, measure_choices
from meetara_build.stages.held_out import (
    BASELINE,
    Runner,
    count_topics,
    find_targets,
    read_held_out,
    round_figure,
    write_figures,
)
from meetara_build.stages.recipes.baseline import BaselineRecipe
from meetara_build.stages.types import MEASURED, Inputs, Metrics


def run(recipe: BaselineRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Measure the base's F16 file on ``test.jsonl`` through llama.cpp; write ``baseline.json``, and
    its answers to some of the prompts, ``answers.jsonl``.

    Inputs: ``base_gguf`` (folder of the base's F16 file), ``dataset``, ``base`` (Hugging Face
    folder, for its tokenizer and chat template).

    Raises:
        ArtifactError: the file is missing or does not fit the base.
        DataError: no record has a completion that fits into the context.
        SetupError: llama-cpp-python is not the version this package was proved with.
    """
    check_llama()
    path = inputs["base_gguf"] / f"{recipe.base}-F16.gguf"
    with Runner.open("base", path) as runner:
        held_out = read_held_out(inputs, {"base": runner}, recipe.context, recipe.max_records)
        with runner.start(held_out, recipe.threads):
            for text, record in zip(held_out.texts, held_out.records, strict=True):
                targets, start = find_targets(text), 0
                for logits in runner.stream(text):
                    runner.add(record, logits, targets[start : start + len(logits)])
                    start += len(logits)
            figures = runner.figures(held_out.counts["tokens"])
            by_topic = {
                topic: round_figure(runner.by_topic[topic] / tokens)
                for topic, tokens in count_topics(held_out).items()
            }
            report = {**held_out.counts, "base": figures, "base_by_topic": by_topic}
            asked = choose_questions(recipe.answers, held_out).asked
            said = ask(runner, asked, recipe.answers, held_out.tokenizer, threads=recipe.threads)
            write_figures(output / BASELINE, {**report, MEASURED: {"base": runner.speeds()}})
    write_lines(output / ANSWERS, describe_answers(asked, {"base": said}))
    return {
        "base_loss": figures["loss"],
        "base_by_topic": by_topic,
        "choices": measure_choices(said),
    }
