"""What a common start gives: adapters trained with it and without, for more epochs and fewer.

python -m bench.start --work FOLDER [--domains NAME …] [--seeds N …]

Each setting is a line of the command line's own words, so that anyone can build by it. A seed
trains its own start. Losses are of base + adapter in float32 on the domains' held-out records, in
nats a token of their answers; CPU-seconds those of the training, checks and validations counted.
Each training is kept at once in FOLDER: what was interrupted goes on.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from bench import machine
from bench.result_files import keep_result
from meetara_build.cli.init import init
from meetara_build.config.overrides import split_words
from meetara_build.engine.stage_run import run
from meetara_build.graph import Graph, load
from meetara_build.training.chat import encode, read_records
from meetara_build.training.loop import evaluate
from meetara_build.training.model import load_model, load_tokenizer

BASE = "base/smollm2_135m"
COLD = "cold, 3 epochs"
SETTINGS = {
    COLD: ("start.enabled=false", "training.epochs=3"),
    "start, 1 epoch": (),
    "start, 2 epochs": ("training.epochs=2",),
    "start of 1 epoch, 1 epoch": ("start.epochs=1",),
    "start, 1 epoch at half the rate": ("training.learning_rate=5e-4",),
}
DOMAINS = ("nutrition", "legal", "emergency_care", "storytelling", "programming", "writing")
SEEDS = (17, 18, 19)


def build(project: Path, domain: str, words: Sequence[str]) -> Graph:
    """All that the domain's adapter needs, and the adapter."""
    graph = load(project, overrides=split_words(words))
    for step in graph.above([("adapter", domain)]):
        run(graph, step)
    return graph


def measure_loss(graph: Graph, domain: str, adapted: bool) -> dict[str, float]:
    """Held-out loss of a domain, with its adapter or of the base alone, and tokens."""
    root = graph.root
    tokenizer = load_tokenizer(root / BASE / "model")
    records = read_records(root / domain / "dataset" / "test.jsonl")
    texts = [encode(tokenizer, record["messages"]) for record in records]
    base: nn.Module = load_model(root / BASE / "model", torch.float32)
    folder = str(root / domain / "adapter")
    model = PeftModel.from_pretrained(base, folder) if adapted else base
    loss, tokens = evaluate(model, texts)
    return {"loss": loss, "tokens": tokens}


def train_all(work: Path, domains: Sequence[str], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each setting, domain and seed; kept ones as they are."""
    project, kept = work / "project", work / "trainings.jsonl"
    if not project.exists():
        init(project)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    known = {tuple(line["key"]): line for line in map(json.loads, lines)}
    for seed in seeds:
        for domain in domains:
            for name, words in (("base", ()), *SETTINGS.items()):
                key = (name, domain, seed)
                if key not in known and (name != "base" or seed == seeds[0]):
                    line = {"key": key, **_train(project, domain, name, (*words, f"seed={seed}"))}
                    known[key] = line
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                    print(line, flush=True)
                if key in known:
                    yield known[key]


def _train(project: Path, domain: str, name: str, words: Sequence[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    graph = build(project, domain, words)
    if name == "base":
        return measure_loss(graph, domain, adapted=False)
    report = json.loads((graph.root / domain / "adapter" / "training.json").read_text())
    start = graph.root / BASE / "start" / "training.json"
    begun = "start" in graph.step("adapter", domain).inputs
    return {
        **measure_loss(graph, domain, adapted=True),
        "steps": report["steps"],
        "cpu_seconds": report["measured"]["cpu_seconds"],
        "start_cpu_seconds": json.loads(start.read_text())["measured"]["cpu_seconds"]
        if begun
        else 0.0,
    }


def summarize(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Losses pooled over all held-out tokens, against the cold setting by domain, and costs."""
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_setting.setdefault(line["key"][0], []).append(line)
    cold = {tuple(line["key"][1:]): line["loss"] for line in by_setting[COLD]}
    found = {}
    for name, several in by_setting.items():
        tokens = sum(line["tokens"] for line in several)
        found[name] = {"loss": sum(line["loss"] * line["tokens"] for line in several) / tokens}
        if name != "base":
            changes = [line["loss"] / cold[tuple(line["key"][1:])] - 1 for line in several]
            found[name] |= {
                "worst_against_cold": max(changes),
                "cpu_seconds": sum(line["cpu_seconds"] for line in several) / len(several),
                "start_cpu_seconds": max(line["start_cpu_seconds"] for line in several),
            }
    return found


def main() -> None:
    """Train, and keep the table."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--domains", nargs="+", default=list(DOMAINS))
    words.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = words.parse_args()
    print(machine.describe())
    given.work.mkdir(parents=True, exist_ok=True)
    lines = list(train_all(given.work, given.domains, given.seeds))
    settings = summarize(lines)
    for name, figures in settings.items():
        print(f"{name:34}", {key: round(value, 4) for key, value in figures.items()})
    keep_result(
        "start",
        {"domains": given.domains, "seeds": given.seeds, "settings": settings, "runs": lines},
    )


if __name__ == "__main__":
    main()
