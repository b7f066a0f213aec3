"""What changes in a run from step to step, and how it is kept in a checkpoint and taken up
again."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from meetara_build.training.checkpoint import Checkpoint
from meetara_build.training.settings import History


@dataclass
class State:
    """Numbers; beside them the run changes weights, the optimizer's moments, ``Kept`` and the
    random state.

    Attributes:
        step: batches that are behind the run, taken or skipped.
        stale: validations since the best one.
        rate_factor: what observers have made of the learning rate.
        measured: validation loss at the end of the race's stretch, see ``race``.
    """

    micro_tokens: int
    step: int = 0
    stale: int = 0
    stopped: bool = False
    rate_factor: float = 1.0
    roll_backs: int = 0
    best_loss: float = math.inf
    measured: float | None = None
    history: History = field(default_factory=History)


@dataclass
class Kept:
    """Tensors that a run holds beside the model's: the best weights by name, empty before the first
    validation; and for each training record and epoch its loss, NaN where it has not come by."""

    losses: Tensor
    best: dict[str, Tensor] = field(default_factory=dict)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def copy_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters' values as they are now."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


@torch.no_grad()
def put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give parameters these values."""
    for name, weight in weights.items():
        weight.copy_(values[name])


def pack(
    state: State,
    kept: Kept,
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Checkpoint:
    """Everything that ``unpack`` needs."""
    tensors = {f"weight/{name}": weight for name, weight in weights.items()}
    tensors |= {f"best/{name}": weight for name, weight in kept.best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in moments.items()}
    tensors |= {"losses": kept.losses, "random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return Checkpoint(tensors, asdict(state))


def unpack(
    found: Checkpoint,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[State, Kept]:
    """Put weights, moments and random state back, and give the rest."""
    kept, moments = Kept(found.tensors["losses"]), dict[int, dict[str, Tensor]]()
    for name, value in found.tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "weight":
            weights[rest].data.copy_(value)
        elif kind == "best":
            kept.best[rest] = value.to(device)
        elif kind == "optimizer":
            index, key = rest.split("/")
            moments.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    torch.set_rng_state(found.tensors["random/cpu"])
    if "random/cuda" in found.tensors:
        torch.cuda.set_rng_state(found.tensors["random/cuda"], device)
    return State(**{**found.state, "history": _history(found.state["history"])}), kept


def _history(values: Mapping[str, Any]) -> History:
    """JSON has lists where a history has tuples."""
    tuples = {name: [tuple(one) for one in values[name]] for name in ("curve", "actions")}
    return History(**{**values, **tuples})
