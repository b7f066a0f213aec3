"""Contexts made by hand, for tests of what agents make of them."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from projects import REPOSITORY

from meetara_build.agents import Context, Domain, Run

CONFIG = {
    "base": "mini",
    "hardware": "cpu",
    "seed": 17,
    "data.max_tokens": 512,
    "lora.rank": 16,
    "lora.alpha": 32,
    "lora.dropout": 0.0,
    "lora.targets": "all-linear",
    "lora.rslora": False,
    "lora.dora": False,
    "training.epochs": 3,
    "training.max_steps": None,
    "training.batch_tokens": 1024,
    "training.micro_batch_tokens": None,
    "training.learning_rate": 2e-4,
    "training.warmup_share": 0.1,
    "training.schedule": "cosine",
    "training.weight_decay": 0.0,
    "training.clip_norm": 1.0,
    "training.patience": 3,
    "training.validations_per_epoch": 1,
    "training.checkpoint_seconds": 60,
    "training.loss_on_prompt": False,
    "training.warm_start": None,
    "training.joint": [],
    "training.topic_weights": {},
    "training.observers": [],
}
"""The keys of a domain that trainings depend on, with values as in conf/build.yaml."""


NUMBERS = count(1)


def load(name: str) -> ModuleType:
    """The agent ``plugins/NAME.py``."""
    spec = importlib.util.spec_from_file_location(
        f"plugin_{name}", REPOSITORY / "plugins" / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def domain(
    folder: Path, name: str, text: str = "", config: Mapping[str, Any] | None = None, **fields: Any
) -> Domain:
    """A domain whose artifacts are below ``folder``, trained on one file that says ``text``."""
    source = folder / f"{name}.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps({"text": text or name}) + "\n", encoding="utf-8")
    given: dict[str, Any] = {
        "category": "own",
        "description": name,
        "topics": [],
        "languages": ["en"],
        "model": {},
        "machine": {},
        "locked": [],
        "decisions": [],
        "decided": {},
        "folder": folder / name,
        "sources": [source],
        **fields,
    }
    return Domain(name=name, config={**CONFIG, **(config or {})}, **given)


def recipe(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The adapter stage's recipe for these keys."""
    whole, found = {**CONFIG, **(config or {})}, dict[str, Any]()
    left_out = ("training.loss_on_prompt", "training.checkpoint_seconds")
    for key, value in whole.items():
        part, _, name = key.partition(".")
        if (
            part in ("lora", "training")
            and key not in left_out
            and not (key == "training.warm_start" and value is None)
        ):
            found.setdefault(part, {})[name] = (
                str(value).rpartition("@")[2] if key == "training.warm_start" else value
            )
    return {
        **found,
        "seed": whole["seed"],
        "max_tokens": whole["data.max_tokens"],
        "threads": 1,
        "device": "cpu",
    }


def training(
    domain: str, loss: float, config: Mapping[str, Any] | None = None, **fields: Any
) -> Run:
    """A finished run of a domain's adapter stage, with this validation loss."""
    number = next(NUMBERS)
    metrics = {
        "validation_loss_before": 6.0,
        "validation_loss_after": loss,
        "training_records": 30,
        "validation_records": 12,
    }
    given: dict[str, Any] = {
        "id": f"run{number}",
        "time": float(number),
        "build": f"build{number}",
        "machine": "here",
        "hardware": "cpu",
        "outcome": "built",
        "seconds": 10.0,
        "cpu_seconds": 10.0,
        "peak_mb": 500.0,
        "size": 800_000,
        "fingerprint": "f",
        "key": f"key{number}",
        "usd": 0.0,
        "inputs": {"base": "base-digest", "dataset": f"{domain}-digest"},
        **fields,
    }
    return Run(
        domain=domain,
        stage="adapter",
        recipe={"domain": domain, **recipe(config)},
        **{**given, "metrics": metrics | fields.get("metrics", {})},
    )


def adapter(
    folder: Path, name: str, digest: str = "a" * 64, config: Mapping[str, Any] | None = None
) -> str:
    """Write the manifest of a domain's adapter; what pins it."""
    manifest = {
        "stage": "adapter",
        "target": name,
        "made_from": {"recipe": recipe(config)},
        "inputs": {"base": "base-digest"},
        "files": {"adapter_model.safetensors": {"sha256": digest, "size": 1}},
    }
    path = folder / name / "adapter" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return f"{name}@{digest}"


def context(*domains: Domain, **fields: Any) -> Context:
    """A context of these domains."""
    return Context({one.name: one for one in domains}, **fields)
