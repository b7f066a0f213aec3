"""Real trainings of small adapters, many in one process: the base and the data sets are built once,
a training takes seconds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.tiny import tiny_project
from meetara_build.engine.stage_run import run
from meetara_build.graph import Graph, Step, load
from meetara_build.training.chat import Encoded, encode, read_records
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import train
from meetara_build.training.model import load_model, load_tokenizer
from meetara_build.training.settings import History, Observer, Settings


def project(folder: Path, domains: Iterable[str] | None = None) -> Graph:
    """A project whose base and datasets are built; of all the shipped domains, unless some are
    named.

    What is there already is used, also if the tool's code has changed since: a base takes minutes.
    """
    if not (folder / "conf").is_dir():
        tiny_project(folder)
    graph = load(folder)
    for step in graph.above(("dataset", name) for name in domains or graph.domains):
        if not (graph.root / step.place.manifest).exists():
            run(graph, step, cold=True)
    return graph


def folder(graph: Graph, step: Step) -> Path:
    """Where a step's artifact is."""
    return graph.root / step.place.folder


class Trainer:
    """One domain's records and settings, as the adapter stage has them."""

    def __init__(self, graph: Graph, domain: str) -> None:
        """Read the records; the base is loaded for each training."""
        step = graph.step("adapter", domain)
        self.recipe: dict[str, Any] = step.recipe
        self.base = graph.root / step.inputs["base"].place.folder
        self.dataset = graph.root / graph.step("dataset", domain).place.folder
        self.tokenizer = load_tokenizer(self.base)
        self.training = self.records("train")
        self.validation = self.encoded(self.records("validation"))
        self.test = self.encoded(self.records("test"))

    def records(self, side: str) -> list[dict[str, Any]]:
        """The records of a side, as the dataset stage wrote them."""
        return list(read_records(self.dataset / f"{side}.jsonl"))

    def encoded(self, records: Sequence[Mapping[str, Any]]) -> list[Encoded]:
        """Records as the trainer takes them, the too long ones left out."""
        found = [encode(self.tokenizer, record["messages"]) for record in records]
        return [record for record in found if len(record.ids) <= self.recipe["max_tokens"]]

    def train(
        self,
        training: Sequence[Encoded],
        changes: Mapping[str, Any],
        seed: int,
        observe: Observer | None = None,
    ) -> tuple[History, torch.nn.Module]:
        """Train a fresh adapter; ``changes`` are training settings that differ from the
        recipe's."""
        model = attach(
            load_model(self.base, torch.float32, self.recipe["device"]), self.recipe["lora"], seed
        )
        known = Settings.__dataclass_fields__
        given = {key: value for key, value in self.recipe["training"].items() if key in known}
        settings = Settings(**{**given, "seed": seed, **changes})
        return train(model, training, self.validation, settings, observe=observe), model
