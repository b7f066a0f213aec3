"""Reports as jobs and agents make them, and contexts to make them to."""

import os
import time
from pathlib import Path
from typing import Any

SETTINGS = {"url": None, "keep_days": 400, "keep_samples_days": 30}
RECIPE = {"training": {"learning_rate": 2e-4, "epochs": 3}, "lora": {"rank": 16}}


def report(kind: str, **fields: Any) -> dict[str, Any]:
    """A report with an id of its own, made now."""
    return {"kind": kind, "id": os.urandom(8).hex(), "time": time.time(), **fields}


def run(
    domain: str = "nutrition", stage: str = "adapter", outcome: str = "built", **fields: Any
) -> dict[str, Any]:
    """A stage run."""
    about = {
        "build": "2026-01-01T00:00:00Z-1",
        "machine": "here",
        "hardware": "cpu",
        "seconds": 2.0,
        "cpu_seconds": 1.5,
    }
    return report("run", domain=domain, stage=stage, outcome=outcome, **{**about, **fields})


def trained(loss: float, **fields: Any) -> dict[str, Any]:
    """A run of nutrition's adapter that reached this loss; ``recipe`` and ``inputs`` are those of
    all, if not given."""
    known = {
        "recipe": RECIPE,
        "inputs": {"dataset": "d" * 64},
        "metrics": {"validation_loss_after": loss},
    }
    return run(**{**known, **fields})


def sample(domain: str = "nutrition", stage: str = "adapter", **fields: Any) -> dict[str, Any]:
    """What a job uses."""
    used = {
        "cpu_percent": 98.0,
        "memory_mb": 800.0,
        "available_mb": 9000.0,
        "total_mb": 16000.0,
        "machine": "here",
    }
    return report("sample", domain=domain, stage=stage, **{**used, **fields})


def progress(domain: str = "nutrition", **fields: Any) -> dict[str, Any]:
    """How far a training is."""
    known = {"step": 10, "steps": 40, "loss": 3.5, "seconds": 5.0}
    return report("progress", domain=domain, stage="adapter", **{**known, **fields})


def proposal(domain: str | None = "nutrition", **fields: Any) -> dict[str, Any]:
    """A message that proposes more epochs."""
    body = {"key": "training.epochs", "value": 4, "reason": "the loss still falls"}
    return report(
        "message",
        **{"about": "proposal", "sender": "tuner", "domain": domain, "body": body, **fields},
    )


def nested(levels: int) -> Any:
    """Lists inside each other."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def one_of_each() -> list[dict[str, Any]]:
    """A report of every kind."""
    asked = proposal()
    return [
        trained(3.0),
        sample(),
        progress(),
        asked,
        report("metrics", domain="nutrition", sender="judge", values={"helpful": 0.8}),
        report("error", domain="nutrition", stage="gguf", sender="judge", message="it broke"),
        report("reply", message=asked["id"], sender="judge", answer="accepted", reason="cheap"),
        report(
            "pattern",
            domain="nutrition",
            change="lora.rank: 8 → 16",
            figure="loss",
            before=3.0,
            after=2.5,
        ),
    ]


def url(folder: Path) -> str:
    """A context in a file of this folder."""
    return f"sqlite:///{folder / 'context.db'}"
