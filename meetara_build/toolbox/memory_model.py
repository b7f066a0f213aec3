"""How much memory a training needs: known terms, and what each of them costs, fitted to runs that
were measured.

Peak memory is the sum of interpreter and libraries, the base's weights and their rearranged copies,
the adapter with its gradient and optimizer, and what the layers keep of a micro-batch for the
backward pass. Each term is counted in bytes from the shape; what a byte of it costs is found by
least squares of relative errors with coefficients that are not negative (Lawson & Hanson, Solving
Least Squares Problems, 1974), drawn towards what reading the trainer's code gives. So without a
measured run the code's figures hold, and each run moves them.

With gradient checkpointing only the layers' inputs are kept, and what one layer keeps while it is
worked out again. Attention makes no [T, T] matrix and logits are made in pieces of one size, so
neither is a term. Padding does not exist. DoRA is left to PEFT, whose memory this does not know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2}
REARRANGED_BELOW = 2 << 30
"""As training.frozen.MEMORY: bytes of copies beyond which weights are not rearranged on a CPU."""

TERMS = (
    "fixed",
    "weights",
    "adapter",
    "layer_hidden",
    "layer_intermediate",
    "layer_keys",
    "dropout",
    "hidden",
)
EXPECTED = {
    "cpu": (520e6, 1.0, 5.0, 11.0, 6.0, 5.0, 1.2, 8.0),
    "cuda": (150e6, 1.0, 5.0, 11.0, 6.0, 5.0, 1.2, 8.0),
}
"""What a byte of each term costs as the trainer is written; the first is bytes of interpreter,
libraries and logits."""
INPUT = {"cpu": 7 / 11, "cuda": 1 / 11}
"""What a layer's kept input costs, over what the layer keeps without gradient checkpointing: one of
11 hidden states. On a CPU each of them lies between blocks that malloc then cannot give back: about
seven, measured on three shapes (with every block mapped, one)."""
TRUST = 0.05
"""Relative error expected of a measured run, over that of an expected coefficient."""


@dataclass(frozen=True)
class Shape:
    """A base and an adapter in training.

    Attributes:
        key_size: heads for keys times the size of a head.
        tokens: of the largest micro-batch.
        targets: "all-linear" or names of layers that get an adapter.
        device: "cpu" or "cuda".
        checkpointed: gradient checkpointing.
    """

    parameters: int
    hidden_size: int
    intermediate_size: int
    layers: int
    key_size: int
    vocab_size: int
    rank: int
    tokens: int
    precision: str = "float32"
    device: str = "cpu"
    dropout: float = 0.0
    targets: str | Sequence[str] = "all-linear"
    checkpointed: bool = False

    def with_tokens(self, tokens: int) -> "Shape":
        """The same with another micro-batch."""
        return replace(self, tokens=tokens)


def shape_of(
    model: Mapping[str, Any],
    lora: Mapping[str, Any],
    precision: str,
    device: str,
    tokens: int,
    checkpointed: bool = False,
) -> Shape | None:
    """The shape of a training of ``domain.model``; None where a size is not known, or DoRA is used.

    ``lora`` has the keys of build.yaml's section.
    """
    names = ("parameters", "hidden_size", "intermediate_size", "layers", "heads", "vocab_size")
    if lora.get("dora") or not all(model.get(name) for name in names):
        return None
    keys = model["hidden_size"] * (model.get("kv_heads") or model["heads"]) // model["heads"]
    return Shape(
        model["parameters"],
        model["hidden_size"],
        model["intermediate_size"],
        model["layers"],
        keys,
        model["vocab_size"],
        lora["rank"],
        tokens,
        precision,
        device,
        lora["dropout"],
        lora["targets"],
        checkpointed,
    )


def terms(shape: Shape) -> list[float]:
    """The bytes of each of ``TERMS``; one for the fixed part."""
    size, adapted = BYTES[shape.precision], _list_adapted(shape)
    states = size * shape.tokens
    kept = states * (1 if shape.checkpointed else shape.layers)
    inputs = states * shape.layers * INPUT[shape.device] if shape.checkpointed else 0.0
    values = sum(a * b for a, b in adapted)
    copies = _copies(shape, values) + _copies(shape, shape.vocab_size * shape.hidden_size)
    dropped_weights = size * values if _copies(shape, values) else 0
    dropped = sum(a for a, _ in adapted) / shape.layers if shape.dropout else 0.0
    return [
        1.0,
        size * shape.parameters - dropped_weights + copies,
        4.0 * shape.rank * sum(a + b for a, b in adapted),
        (kept + inputs) * shape.hidden_size,
        kept * shape.intermediate_size,
        kept * shape.key_size,
        kept * dropped,
        states * shape.hidden_size,
    ]


@dataclass(frozen=True)
class MemoryModel:
    """What a byte of each term costs, and how many runs say so."""

    costs: Sequence[float]
    runs: int = 0

    def peak_bytes(self, shape: Shape) -> float:
        """Peak memory of a training."""
        return sum(cost * term for cost, term in zip(self.costs, terms(shape), strict=True))

    def most_tokens(self, shape: Shape, available: float) -> int:
        """The largest micro-batch whose peak is within ``available`` bytes; zero if none is."""
        without = self.peak_bytes(shape.with_tokens(0))
        each = self.peak_bytes(shape.with_tokens(1)) - without
        return max(0, int((available - without) / each))


def fit_model(measured: Iterable[tuple[Shape, float]], device: str = "cpu") -> MemoryModel:
    """The model that fits measured peaks, in bytes, of this device."""
    import numpy as np
    from scipy.optimize import nnls

    expected = EXPECTED[device]
    runs = [(terms(shape), peak) for shape, peak in measured if shape.device == device]
    rows = [
        [term * cost / peak for term, cost in zip(found, expected, strict=True)]
        for found, peak in runs
    ]
    drawn = TRUST * np.eye(len(expected))
    matrix = np.vstack([np.array(rows).reshape(len(rows), len(expected)), drawn])
    wanted = np.concatenate([np.ones(len(rows)), np.full(len(expected), TRUST)])
    factors, _ = nnls(matrix, wanted)
    return MemoryModel(
        [float(factor * cost) for factor, cost in zip(factors, expected, strict=True)], len(runs)
    )


def _list_adapted(shape: Shape) -> list[tuple[int, int]]:
    """In and out of every layer that gets an adapter, as Llama and its kin name them."""
    hidden, inner, keys = shape.hidden_size, shape.intermediate_size, shape.key_size
    known = {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (hidden, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    chosen = [
        sizes
        for name, sizes in known.items()
        if shape.targets == "all-linear" or name in shape.targets
    ]
    return chosen * shape.layers


def _copies(shape: Shape, values: int) -> int:
    """Bytes of the two copies of a frozen weight that a CPU gets."""
    copies = 2 * values * BYTES[shape.precision]
    return copies if shape.device == "cpu" and copies <= REARRANGED_BELOW else 0
