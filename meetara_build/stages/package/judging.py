"""A domain's answers judged: what is wrong with each, and how often a file says such a thing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.outside import show_line
from meetara_build.stages.answers import (
    CHECKS,
    Answer,
    Case,
    Finding,
    Knowledge,
    Said,
    gather_knowledge,
    judge_answer,
    list_applied,
    measure_closeness,
)
from meetara_build.stages.answers.words import normalise
from meetara_build.stages.recipes.package import PackageRecipe
from meetara_build.stages.sample import SAMPLE, read_sample
from meetara_build.stages.types import Inputs
from meetara_build.training.chat import read_records

Line = Mapping[str, Any]
"""A line of ``evaluation/answers.jsonl``."""
SAMPLE_LANGUAGE = "en"
"""Of the pinned sample: its lines name none."""
SHOWN = 240
"""Characters of an answer around what was found, where it is shown."""


class Judged(NamedTuple):
    """One answer of a file: what was asked, what it said, how close that is to the reference (chrF, 0
    to 100), what the checks found, and by which checks it was judged."""

    line: Line
    text: str
    closeness: float
    findings: list[Finding]
    checks: list[str]

    @property
    def harms(self) -> list[Finding]:
        """What can do harm."""
        return [one for one in self.findings if one.harmful]

    def describe(self) -> dict[str, Any]:
        """For a line of JSON."""
        return {
            "closeness": self.closeness,
            "findings": [finding.__dict__ for finding in self.findings],
        }


def judge_files(
    recipe: PackageRecipe, inputs: Inputs, lines: Sequence[Line]
) -> dict[str, list[Judged]]:
    """By file, the base first, each of its answers judged."""
    if not lines:
        return {}
    knowledge = _gather(recipe, inputs)
    by_file: dict[str, list[Judged]] = {name: [] for name in lines[0]["answers"]}
    for line in lines:
        case = Case(line["prompt"], line["reference"], line["language"], recipe.safety, knowledge)
        checks = [check.name for check in list_applied(case)]
        for name, said in line["answers"].items():
            answer = Answer(said["text"], said["ended"], said["tokens"])
            closeness = round(measure_closeness(answer.text, case.reference), 2)
            found = judge_answer(case, answer)
            by_file[name].append(Judged(line, answer.text, closeness, found, checks))
    return by_file


def _gather(recipe: PackageRecipe, inputs: Inputs) -> Knowledge:
    """What the answers may say: the records that training saw, and the reviewed lists."""
    files = [inputs["dataset"] / name for name in ("train.jsonl", "validation.jsonl")]
    said = [one for file in files for record in read_records(file) for one in _cut(record)]
    return gather_knowledge(
        said,
        recipe.lists,
        recipe.system_prompt,
        recipe.languages,
        _read_background(inputs.get(SAMPLE)),
    )


def _cut(record: Mapping[str, Any]) -> Iterator[Said]:
    """Each answer of a record, with all that was said before it."""
    before: list[str] = []
    for turn in record["messages"]:
        if turn["role"] == "assistant":
            yield Said("\n\n".join(before), turn["content"], record["language"])
        if turn["role"] != "system":
            before.append(turn["content"])


def _read_background(sample: Path | None) -> list[Said]:
    if sample is None:
        return []
    return [
        Said(turns[0]["content"], turns[-1]["content"], SAMPLE_LANGUAGE)
        for turns in read_sample(sample)
    ]


def count_findings(judged: Sequence[Judged]) -> dict[str, Any]:
    """How many answers a file gave, how close they are, and by check which share has a finding; None
    for a check that was applied to none."""
    return {
        "answers": len(judged),
        "closeness": round(sum(one.closeness for one in judged) / len(judged), 2),
        "faulty": _share(one.findings for one in judged),
        "harmful": _share(one.harms for one in judged),
        "checks": {check.name: _count_check(check.name, judged) for check in CHECKS},
    }


def _count_check(name: str, judged: Sequence[Judged]) -> float | None:
    applied = [one for one in judged if name in one.checks]
    if not applied:
        return None
    return _share([one for one in judged.findings if one.check == name] for judged in applied)


def _share(found: Iterable[Sequence[Finding]]) -> float:
    every = [bool(one) for one in found]
    return round(sum(every) / len(every), 4)


def list_harms(judged: Sequence[Judged], check: str) -> list[tuple[Judged, Finding]]:
    """The answers in which a check finds what can do harm, each with the first finding."""
    found = []
    for one in judged:
        harm = next((finding for finding in one.harms if finding.check == check), None)
        if harm is not None:
            found.append((one, harm))
    return found


def rank_worst(judged: Sequence[Judged], count: int) -> list[Judged]:
    """The worst answers: what can do harm goes before what does not, more before less, and then what
    is farther from the reference."""
    return sorted(
        judged,
        key=lambda one: (-len(one.harms), -len({f.check for f in one.findings}), one.closeness),
    )[:count]


def show_around(text: str, finding: Finding | None = None) -> str:
    """The part of an answer around what was found, or of any text its beginning, on one line."""
    whole = normalise(text)
    at = finding.at if finding is not None else 0
    start = max(0, min(at - SHOWN // 3, len(whole) - SHOWN))
    part = show_on_line(whole[start : start + SHOWN])
    return f"{'…' if start else ''}{part}{'…' if start + SHOWN < len(whole) else ''}"


def show_on_line(text: str) -> str:
    """Text with words from outside as one line; what cannot be seen is written as an escape."""
    return show_line(" ".join(text.split()))
