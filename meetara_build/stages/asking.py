"""Held-out prompts put to GGUF files: which, what they answer, and between which answers they
choose."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.generation import Question, write_answers
from meetara_build.stages.answer_lines import Said
from meetara_build.stages.held_out import HeldOut, Runner
from meetara_build.stages.recipes.answers import AnswersRecipe
from meetara_build.training.chat import Encoded

OTHERS = 3
"""Answers to other prompts of the domain that the right one is chosen among."""
Z = 1.96
"""Of a normal distribution, 95% lies so many standard deviations around its middle."""


class Asked(NamedTuple):
    """A held-out record, and what a file is asked of it."""

    record: Mapping[str, Any]
    question: Question


class Questions(NamedTuple):
    """What is asked; ``passed_over`` prompts leave no room for an answer."""

    asked: list[Asked]
    passed_over: int


def choose_questions(recipe: AnswersRecipe, held_out: HeldOut) -> Questions:
    """Prompts of the held-out records, spread evenly over those that leave room for an answer.

    What is asked is the last question of a record that was not cut. The choices are the beginning
    of its answer and those of the next records in its language; none where there are too few.
    """
    if recipe.prompts == 0:
        return Questions([], 0)
    cut = [find_last_answer(text) for text in held_out.whole]
    room = held_out.context - max(recipe.tokens, recipe.choice_tokens)
    fitting = [at for at, (start, _) in enumerate(cut) if 0 < start <= room]
    count = min(len(fitting), recipe.prompts or len(fitting))
    answers = [
        text.ids[start:end][: recipe.choice_tokens]
        for text, (start, end) in zip(held_out.whole, cut, strict=True)
    ]
    asked = []
    for place in range(count):
        at = fitting[place * len(fitting) // count]
        prompt = held_out.whole[at].ids[: cut[at][0]]
        choices = _find_choices(at, held_out.records, answers)
        asked.append(Asked(held_out.records[at], Question(prompt, choices)))
    return Questions(asked, len(cut) - len(fitting))


def find_last_answer(text: Encoded) -> tuple[int, int]:
    """Where the tokens of a text's last answer begin and end; two zeros where it has none."""
    end = next((at for at in range(len(text.mask), 0, -1) if text.mask[at - 1]), 0)
    start = next((at for at in range(end, 0, -1) if not text.mask[at - 1]), 0)
    return start, end


def _find_choices(
    at: int, records: Sequence[Mapping[str, Any]], answers: Sequence[list[int]]
) -> list[list[int]]:
    """The answer to a record, and others' in its language, each of which begins otherwise."""
    found = [answers[at]]
    for step in range(1, len(records)):
        other = (at + step) % len(records)
        same = records[other]["language"] == records[at]["language"]
        if same and answers[other] and answers[other] not in found:
            found.append(answers[other])
        if len(found) == 1 + OTHERS:
            return found
    return []


def ask(
    runner: Runner,
    asked: Sequence[Asked],
    recipe: AnswersRecipe,
    tokenizer: PreTrainedTokenizerBase,
    *,
    threads: int,
) -> list[Said]:
    """What a file answers to each question, and how likely it finds its choices; the time is
    taken."""
    started = time.process_time()
    written = write_answers(
        runner.model,
        [one.question for one in asked],
        recipe.tokens,
        threads=threads,
        lora=runner.lora,
    )
    runner.answer_seconds = time.process_time() - started
    return [
        {
            "text": str(tokenizer.decode(one.tokens, skip_special_tokens=True)),
            "ended": one.ended,
            "tokens": len(one.tokens),
            "nats": [round(nats, 4) for nats in one.nats],
        }
        for one in written
    ]


def describe_answers(asked: Sequence[Asked], by_file: Mapping[str, Sequence[Said]]) -> list[Said]:
    """A line for each question: the record's id, topic, language and turns, a person's answer, and
    those of files by name."""
    lines = []
    for at, (record, _) in enumerate(asked):
        messages = record["messages"]
        last = max(
            place
            for place, turn in enumerate(messages)
            if turn["role"] == "assistant" and turn.get("learn", True)
        )
        lines.append(
            {
                "id": record["id"],
                "topic": record.get("topic"),
                "language": record["language"],
                "prompt": _describe_prompt(messages[:last]),
                "reference": messages[last]["content"],
                "answers": {name: said[at] for name, said in by_file.items()},
            }
        )
    return lines


def _describe_prompt(messages: Iterable[Mapping[str, str]]) -> str:
    """All turns before an answer, but for the system's."""
    return "\n\n".join(turn["content"] for turn in messages if turn["role"] != "system")


def take_answers(lines: Sequence[Said], asked: Sequence[Asked], where: str) -> list[Said]:
    """The answers of the one file that lines have, where they are to these questions.

    Raises:
        ArtifactError: they are to others.
    """
    if [line["id"] for line in lines] != [one.record["id"] for one in asked]:
        raise ArtifactError(
            f"{where}: the base was asked other questions than these. Build the baseline stage "
            "again."
        )
    return [next(iter(line["answers"].values())) for line in lines]


def measure_choices(said: Iterable[Said]) -> dict[str, Any] | None:
    """How often a file finds the right answer likelier, token by token, than the others: the share,
    its 95% interval (Wilson 1927), and of how many; None where it never had a choice."""
    chosen = [one["nats"] for one in said if one["nats"]]
    if not chosen:
        return None
    right = sum(nats[0] < min(nats[1:]) for nats in chosen)
    low, high = find_interval(right, len(chosen))
    return {
        "choices": len(chosen),
        "accuracy": round(right / len(chosen), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def find_interval(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927), which holds for few and for none or all too."""
    share, spread = right / count, Z * Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
