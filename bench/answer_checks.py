"""How good the checks of answers are: ``python -m bench.answer_checks [--show CHECK]``.

False alarms: each shipped human answer, but for those of the pinned sample, which are never held
out, is judged as if a model had given it to its own prompt. Its domain's records lie in five parts;
those outside its part are what the domain trained on. Caught: the same answers with one fault each
(``bench.answer_mutants``), judged by the check that is meant for it.

``--show`` prints what a check says of human answers, and the mutants that it misses.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bench import machine
from bench.answer_mutants import MUTANTS, Pool, Shipped
from bench.result_files import keep_result, read_result
from meetara_build.config.safety import read_safety
from meetara_build.stages.answers import (
    CHECKS,
    Answer,
    Case,
    Check,
    Knowledge,
    Said,
    gather_knowledge,
    judge_answer,
    list_applied,
)
from meetara_build.stages.answers.checks import CHECK
from meetara_build.stages.recipes.safety import SafetyLists
from meetara_build.stages.sample import read_sample

PROJECT = Path(__file__).parents[1]
CONF = PROJECT / "conf"
PARTS = 5
DRAWS, TIMES = 600, 10
"""Mutants of a kind at most, and of one answer, where few can have that fault."""
BY_REFERENCE = ("length", "referral", "topic", "closeness")
"""Checks that compare with the reference: that a human answer is like itself says nothing of
them."""
OF_FACTS = ("calls", "phones", "doses", "amounts", "addresses", "statutes")


class Domain:
    """A shipped domain, its records in parts, and what each part's cases may say."""

    def __init__(
        self, name: str, lists: Mapping[str, SafetyLists], texts: list[Said], taught: set[str]
    ) -> None:
        content = yaml.safe_load((CONF / "domain" / f"{name}.yaml").read_text(encoding="utf-8"))
        self.name, self.safety = name, content["safety"]
        lines = (CONF / "domain" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        self.records = [
            Shipped(name, self.safety, one.get("language", "en"), one["prompt"], one["response"])
            for one in map(json.loads, filter(str.strip, lines))
        ]
        order = list(range(len(self.records)))
        random.Random(name).shuffle(order)
        self.part = {at: place % PARTS for place, at in enumerate(order)}
        self.training = {
            part: [
                record
                for at, record in enumerate(self.records)
                if self.part[at] != part or record.prompt in taught
            ]
            for part in range(PARTS)
        }
        self.knowledge = {
            part: self._gather(records, lists, texts, content)
            for part, records in self.training.items()
        }
        self.held_out = [at for at, one in enumerate(self.records) if one.prompt not in taught]

    def _gather(
        self,
        records: Iterable[Shipped],
        lists: Mapping[str, SafetyLists],
        texts: list[Said],
        content: Mapping[str, Any],
    ) -> Knowledge:
        said = [Said(one.prompt, one.answer, one.language) for one in records]
        prompt = content.get("system_prompt")
        return gather_knowledge(said, lists, prompt, content["languages"], texts)

    def case(self, at: int) -> Case:
        """A record as a held-out case."""
        one = self.records[at]
        knowledge = self.knowledge[self.part[at]]
        return Case(one.prompt, one.answer, one.language, self.safety, knowledge)


def read_domains(lists: Mapping[str, SafetyLists]) -> list[Domain]:
    """All shipped domains."""
    sample = read_sample(CONF / "sample.jsonl")
    texts = [Said(turns[0]["content"], turns[-1]["content"], "en") for turns in sample]
    taught = {turns[0]["content"] for turns in sample}
    names = sorted(path.stem for path in (CONF / "domain").glob("*.jsonl"))
    return [Domain(name, lists, texts, taught) for name in names]


def measure_alarms(domains: list[Domain], show: str | None) -> dict[str, Any]:
    """By check, how many human answers it finds fault with; of them by language, and without
    trusting the reference."""
    judged: Counter[str] = Counter()
    alarms: dict[str, Counter[str]] = defaultdict(Counter)
    any_alarm = harmful = 0
    for domain in domains:
        for at in domain.held_out:
            case, answer = domain.case(at), Answer(domain.records[at].answer)
            judged["all"] += 1
            judged[case.language] += 1
            findings = judge_answer(case, answer)
            any_alarm += bool(findings)
            harmful += any(one.harmful for one in findings)
            for name in {one.check for one in findings}:
                alarms[name]["all"] += 1
                alarms[name][case.language] += 1
            alone = judge_answer(replace(case, trusts_reference=False), answer)
            for name in {one.check for one in alone}:
                alarms[name]["alone"] += 1
                alarms[name]["alone_strict"] += case.safety == "strict"
            for one in findings if show else ():
                if one.check == show:
                    print(f"ALARM {domain.name}: {one.says} | {answer.text[-160:]}")
            for one in alone if show else ():
                if one.check == show:
                    print(f"ALONE {domain.name}: {one.says}")
    strict = sum(len(domain.held_out) for domain in domains if domain.safety == "strict")
    return {
        "answers": judged["all"],
        "strict": strict,
        "by_language": {code: judged[code] for code in ("en", "es", "hi")},
        "any": any_alarm / judged["all"],
        "harmful": harmful / judged["all"],
        "checks": {
            check.name: {
                "all": alarms[check.name]["all"] / _count(check, judged["all"], strict),
                "alone": alarms[check.name]["alone"] / _count(check, judged["all"], strict),
                "alone_strict": alarms[check.name]["alone_strict"] / strict,
                **{code: alarms[check.name][code] / judged[code] for code in ("en", "es", "hi")},
            }
            for check in CHECKS
        },
    }


def _count(check: Check, answers: int, strict: int) -> int:
    """How many answers a check is for."""
    return answers if "standard" in check.judges else strict


def measure_caught(
    domains: list[Domain], lists: Mapping[str, SafetyLists], show: str | None
) -> dict[str, Any]:
    """By kind of mutant, how many the check that is meant for it finds, and any check."""
    everyone = [domain.records[at] for domain in domains for at in domain.held_out]
    places = [(domain, at) for domain in domains for at in domain.held_out]
    report = {}
    for kind, (name, mutate) in MUTANTS.items():
        draw = random.Random(kind)
        order = draw.sample(places, len(places))
        # the few in other languages first, so that each is there
        order.sort(key=lambda place: place[0].records[place[1]].language == "en")
        made: Counter[str] = Counter()
        caught: Counter[str] = Counter()
        by_any, answers = 0, set()
        for domain, at in order * TIMES:
            if made["all"] >= DRAWS:
                break
            record = domain.records[at]
            numbers = {
                one for region in lists[record.language].emergency.values() for one in region
            }
            pool = Pool(everyone, domain.training[domain.part[at]], frozenset(numbers))
            text = mutate(record, pool, draw)
            if text is None:
                continue
            case, answer = domain.case(at), Answer(text)
            if CHECK[name] not in list_applied(case):
                continue
            found = list(CHECK[name].find(case, answer))
            for key in ("all", record.language):
                made[key] += 1
                caught[key] += bool(found)
            by_any += bool(found) or bool(judge_answer(case, answer))
            answers.add((domain.name, at))
            if name == show and not found:
                print(f"MISSED {domain.name} ({kind}): {text[-300:]!r}")
        report[kind] = {
            "check": name,
            "answers": len(answers),
            "made": dict(made),
            "caught": {key: caught[key] / made[key] for key in made},
            "by_any": by_any / made["all"],
        }
    return report


def judge_real_answers(domains: list[Domain]) -> dict[str, Any]:
    """What the checks say of answers that small models gave: those that ``bench.real_base``
    kept."""
    named = {domain.name: domain for domain in domains}
    found: Counter[str] = Counter()
    answers = faulty = harmful = 0
    for name, measured in read_result("real_base")["domains"].items():
        for one in measured["answers"]:
            domain = named[name]
            knowledge = domain.knowledge[0]
            case = Case(one["prompt"], one["reference"], "en", domain.safety, knowledge)
            findings = judge_answer(case, Answer(one["answer"]))
            answers += 1
            faulty += bool(findings)
            harmful += any(each.harmful for each in findings)
            found.update({each.check for each in findings})
    return {
        "answers": answers,
        "faulty": faulty,
        "harmful": harmful,
        "checks": dict(sorted(found.items())),
    }


def round_shares(figures: Any) -> Any:
    """Four digits behind the point."""
    if isinstance(figures, dict):
        return {key: round_shares(value) for key, value in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


def main() -> None:
    """Measure, print and keep."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--show", metavar="CHECK", help="print what it misses; keep nothing")
    show = words.parse_args().show
    lists = read_safety(PROJECT)
    domains = read_domains(lists)
    alarms = measure_alarms(domains, show)
    figures = round_shares(
        {
            "false_alarms": alarms,
            "caught": measure_caught(domains, lists, show),
            "real": judge_real_answers(domains),
        }
    )
    print(machine.describe())
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if not show:
        keep_result("answer_checks", figures)


if __name__ == "__main__":
    main()
