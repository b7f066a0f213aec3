"""Checkpoints that are whole or absent, and that only the run which wrote them takes up again."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

log = logging.getLogger(__name__)

FILE = "training.checkpoint"
_STATE = "state.json"
_DIGEST = 64


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    tensors: weights, optimizer moments, best weights, random state, by name.
    state: JSON values: step, learning rate factor, curve, …
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, run: str, checkpoint: Checkpoint) -> None:
    """Write ``folder/training.checkpoint`` for the run named ``run``: a kill leaves the old one or
    the new one.

    Layout: SHA-256 of the rest in hex, then a safetensors file that also carries the state as JSON
    bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"run": run, **checkpoint.state})
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()
    }
    tensors[_STATE] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    payload = save_tensors(tensors)
    part = folder / f"{FILE}.part"
    with part.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode())
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / FILE)


def load(folder: Path, run: str) -> Checkpoint | None:
    """The checkpoint of the run named ``run``; None, with a warning, if it is damaged or another
    run's."""
    path = folder / FILE
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, payload = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        log.warning("%s is damaged: ignoring it, training starts anew", path)
        return None
    tensors = load_tensors(payload)
    state = json.loads(bytes(tensors.pop(_STATE).tolist()))
    if state.pop("run") != run:
        log.warning(
            "%s belongs to another base, data or configuration: ignoring it, training starts anew",
            path,
        )
        return None
    return Checkpoint(tensors, state)


def run_name(model: torch.nn.Module, parts: Mapping[str, object], *, frozen: bool = False) -> str:
    """A digest of what a run starts from: ``parts`` (settings, data: JSON values) and the model's
    weights; of ``frozen`` ones alone, if asked.

    Of frozen weights it reads every name and shape but only up to 256 values each, evenly spaced:
    enough to tell two models apart without reading gigabytes.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for name, weight in model.named_parameters():
        if frozen and weight.requires_grad:
            continue
        digest.update(
            f"{name} {tuple(weight.shape)} {weight.dtype} {weight.requires_grad}\n".encode()
        )
        flat = weight.detach().reshape(-1)
        sample = flat if weight.requires_grad else flat[:: max(1, flat.numel() // 256)]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()
