"""Trainers for the tests: real ones, loaded from a folder, but serving in a thread of the test."""

import hashlib
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from meetara_build import sockets
from meetara_build.stages.adapter import WEIGHTS, save_adapter
from meetara_build.training.chat import Encoded
from meetara_build.training.checkpoint import run_name
from meetara_build.training.kernels.lora import attach
from meetara_build.training.loop import train
from meetara_build.training.settings import History, Observer, Settings
from meetara_build.training.slots.client import find_socket
from meetara_build.training.slots.joining import Sharing
from meetara_build.training.slots.trainer import Base, Trainer

Make = Callable[..., PreTrainedModel]
Records = Callable[..., list[Encoded]]
LORA: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}
SLOTS, TOKENS = 3, 64
SETTINGS = Settings(epochs=2, batch_tokens=48, learning_rate=5e-3, seed=7)
DOMAINS = ("nutrition", "legal", "music")


class Trained(NamedTuple):
    """A domain's adapter, as the digest of its file; what happened; who could be in its passes."""

    digest: str
    history: History
    company: dict[str, str]


class House:
    """A base in a folder, a trainer that serves it, and domains that are trained with it."""

    def __init__(self, folder: Path, tiny: Make, records: Records) -> None:
        self.folder, self.tiny, self.records = folder, tiny, records
        self.base_folder = folder / "base"
        tiny().save_pretrained(self.base_folder)
        self.base = Base(str(self.base_folder.resolve()), "float32", "cpu", LORA, 1, SLOTS, TOKENS)
        self.names = itertools.count()

    @property
    def socket(self) -> Path:
        """Where domains look for the trainer."""
        return find_socket(self.base, run_name(attach(self.tiny(), LORA, 0), {}, frozen=True))

    def start(self, prepare: Callable[[Trainer], None] = lambda trainer: None) -> Trainer:
        """Have a trainer serve in a thread; ``prepare`` sees it before."""
        trainer = Trainer(sockets.listen(self.socket))
        trainer.load(self.base)
        prepare(trainer)
        threading.Thread(target=trainer.serve, args=(60.0,), daemon=True).start()
        return trainer

    def data(self, domain: str) -> tuple[list[Encoded], list[Encoded]]:
        """A domain's records: training, validation."""
        seed = DOMAINS.index(domain)
        return self.records(14, seed=seed), self.records(3, seed=90 + seed)

    def make(self, domain: str) -> PeftModel:
        """A domain's fresh adapter; not for threads, which share one source of chance."""
        return attach(self.tiny(), LORA, seed=DOMAINS.index(domain))

    def train(
        self,
        domain: str,
        settings: Settings = SETTINGS,
        checkpoints: Path | None = None,
        observe: Observer | None = None,
        **more: Any,
    ) -> Trained:
        """Train one domain as the adapter stage does."""
        model = more.get("model") or self.make(domain)
        training, validation = more.get("data") or self.data(domain)
        sharing = self.share([*training, *validation])
        history = train(
            model, training, validation, settings, checkpoints, observe, sharing.prepare
        )
        return Trained(self.digest(model), history, sharing.describe())

    def share(self, records: Sequence[Encoded]) -> Sharing:
        """How a domain with these records is trained."""
        return Sharing(self.base_folder, "float32", "cpu", LORA, 1, self.base.slots, records)

    def digest(self, model: PeftModel) -> str:
        """sha256 of the adapter's file."""
        output = self.folder / f"out-{next(self.names)}"
        output.mkdir()
        save_adapter(model, "tiny", output)
        return hashlib.sha256((output / WEIGHTS).read_bytes()).hexdigest()

    def train_together(
        self, domains: Sequence[str], **more: dict[str, Any]
    ) -> dict[str, Trained | BaseException]:
        """Train some domains at the same time, begun in this order; ``more`` by domain."""
        found: dict[str, Trained | BaseException] = {}
        models = {domain: self.make(domain) for domain in domains}

        def work(domain: str) -> None:
            try:
                found[domain] = self.train(domain, model=models[domain], **more.get(domain, {}))
            except BaseException as fault:
                found[domain] = fault

        threads = [threading.Thread(target=work, args=(domain,)) for domain in domains]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.fixture
def house(
    tmp_path: Path, tiny: Make, records: Records, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    threads = torch.get_num_threads()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield House(tmp_path, tiny, records)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
