"""Near-duplicates of 100,000 records: time and memory. ``python -m bench.near_duplicates [COUNT]``.

The records are made of the sentences of the shipped domains, halves of two joined, so that texts
have words in common as real ones do; every tenth repeats an earlier one with a word changed.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import machine
from bench.result_files import keep_result
from meetara_build.stages.dataset.duplicates import distinct
from meetara_build.stages.dataset.records import Record, content_id

CONF = Path(__file__).parents[1] / "conf" / "domain"
COUNT = 100_000


def sentences() -> list[str]:
    """Questions, and sentences of answers, of all shipped domains."""
    found: dict[str, None] = {}
    for path in sorted(CONF.rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[record["prompt"]] = None
            found.update(dict.fromkeys(part.strip() for part in record["response"].split(". ")))
    return [sentence for sentence in found if len(sentence) > 15]


def records(count: int) -> Iterator[Record]:
    """Made-up records, the same each time."""
    source, known = random.Random(0), sentences()
    said: list[tuple[str, str]] = []
    for number in range(count):
        if number % 10 == 9:
            question, answer = source.choice(said)
            answer = " ".join(["Indeed", *answer.split()[1:]])
        else:
            first, last = source.choice(known).split(), source.choice(known).split()
            question = " ".join(first[: len(first) // 2 + 1] + last[len(last) // 2 :])
            answer = ". ".join(source.sample(known, 3))
        said.append((question, answer))
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield Record(content_id(messages), messages, "en", None, f"made_up.jsonl:{number + 1}")


def main() -> None:
    """Measure, print and keep."""
    made = list(records(int(sys.argv[1]) if sys.argv[1:] else COUNT))
    before, started, used = (
        resource.getrusage(resource.RUSAGE_SELF),
        time.monotonic(),
        time.process_time(),
    )
    found = distinct(made, near_duplicate=0.85, near_group=0.75)
    figures = {
        "records": len(made),
        "dropped": len(found.drops),
        "groups": len(set(found.groups)),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "records_gb": round(before.ru_maxrss / 1e6, 2),
    }
    print(machine.describe())
    print(json.dumps(figures, indent=1))
    if len(made) == COUNT:
        keep_result("near_duplicates", figures)


if __name__ == "__main__":
    main()
