"""Adapters trained in memory, one after the other, exactly as the adapter stage trains them."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from meetara_build.graph import OBSERVER
from meetara_build.hosting.observers import Observers
from meetara_build.stages import adapter
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.training.kernels.lora import attach, begin_from
from meetara_build.training.model import load_model, load_tokenizer, position_limit
from meetara_build.training.precision import DTYPES
from meetara_build.training.settings import Action, History, Observer, Progress


class Trainer:
    """A base and a domain's records, loaded once; the agents that watch the domain's training watch
    these too."""

    def __init__(self, recipe: Mapping[str, Any], inputs: Mapping[str, Path], logs: Path) -> None:
        """``recipe`` and ``inputs`` are the adapter stage's; what agents print goes to ``logs``.

        Raises:
            TrainingError: as the stage does.
        """
        files = {
            name.removeprefix(OBSERVER): path
            for name, path in inputs.items()
            if name.startswith(OBSERVER)
        }
        self.agents = Observers(files, logs, _report_lost)
        own = AdapterRecipe.model_validate(recipe)
        torch.set_num_threads(own.threads)
        tokenizer = load_tokenizer(inputs["base"])
        self.model = load_model(inputs["base"], DTYPES[own.precision], own.device)
        self.learnt = adapter.records.read(own, inputs, tokenizer, position_limit(self.model))
        self.warm_start = inputs.get("warm_start")
        self.start, self.lora = inputs.get("start"), own.lora

    def train(self, recipe: Mapping[str, Any], observe: Observer | None = None) -> History:
        """Train a fresh adapter by this recipe, and take it off the base again.

        Raises:
            TrainingError: a loss that is not finite.
        """
        own = AdapterRecipe.model_validate(recipe)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's, of a base that has had an adapter before
            adapted = attach(self.model, own.lora.model_dump(), own.seed)

        if self.start is not None and own.lora == self.lora:
            begin_from(adapted, self.start / adapter.WEIGHTS)

        def both(progress: Progress) -> Action | None:
            action = self.agents(progress)
            return observe(progress) or action if observe else action

        settings = adapter.settings_of(own)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                return adapter.fit(
                    adapted, self.learnt, settings, self.warm_start, Path(scratch), both
                )[0]
        finally:
            self.model = adapted.unload()

    def close(self) -> None:
        """End the agents' processes."""
        self.agents.close()


def _report_lost(name: str, fault: str) -> None:
    print(f"observer '{name}' {fault}; trials go on without it", flush=True)
