"""The memory model against measured peaks: calibrated on twelve trainings, tried on seventeen
others, five of them larger than any, and three with gradient checkpointing, which none of the
calibration has.

python -m bench.agents.memory

Each is a real training, of two steps, of a base with random weights, by the adapter stage's own
trainer. It runs in a process forked from one that has imported everything and run nothing, as a
build's jobs do, and its peak is what the system counted.
"""

import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from bench.result_files import keep_result
from meetara_build.toolbox.memory_model import MemoryModel, Shape, fit_model, shape_of

BOUND = 0.15
LORA = {"alpha": 32, "dropout": 0.0, "targets": "all-linear", "rslora": False, "dora": False}


class Tried(NamedTuple):
    """A base, a rank and a micro-batch in tokens."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rank: int
    tokens: int
    checkpointed: bool = False

    def shape(self, parameters: int, tokens: int) -> Shape:
        """As the memory model takes it."""
        names = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size")
        model = {"parameters": parameters, **dict(zip(names, self, strict=False))}
        found = shape_of(
            model, {**LORA, "rank": self.rank}, "float32", "cpu", tokens, self.checkpointed
        )
        assert found is not None
        return found


CALIBRATION = [
    Tried(128, 512, 2, 2, 2, 4096, 8, 2048),
    Tried(128, 384, 8, 4, 2, 8192, 16, 4096),
    Tried(256, 512, 3, 4, 2, 4096, 16, 1024),
    Tried(256, 512, 3, 4, 2, 4096, 16, 4096),
    Tried(256, 1024, 4, 4, 4, 8192, 16, 2048),
    Tried(256, 768, 12, 8, 4, 4096, 32, 2048),
    Tried(384, 1024, 4, 6, 2, 16000, 8, 2048),
    Tried(384, 1536, 6, 6, 6, 32000, 16, 1024),
    Tried(512, 1024, 2, 8, 8, 16000, 64, 2048),
    Tried(512, 1536, 4, 8, 2, 32000, 8, 1024),
    Tried(512, 1408, 6, 8, 4, 49152, 16, 512),
    Tried(768, 2048, 2, 12, 4, 16000, 16, 1024),
]
HELD_OUT = [
    Tried(192, 768, 6, 3, 3, 16000, 16, 4096),
    Tried(256, 1024, 8, 8, 2, 32000, 8, 2048),
    Tried(320, 960, 5, 5, 5, 8192, 32, 3072),
    Tried(384, 1024, 12, 6, 2, 4096, 16, 2048),
    Tried(512, 1536, 4, 8, 2, 32000, 64, 2048),
    Tried(512, 2048, 3, 8, 4, 49152, 16, 1024),
    Tried(576, 1536, 6, 9, 3, 49152, 8, 512),
    Tried(640, 1728, 3, 10, 2, 32000, 16, 1536),
    Tried(768, 2048, 2, 12, 12, 4096, 8, 512),
]
LARGER = [
    Tried(128, 256, 12, 2, 1, 8192, 8, 8192),
    Tried(256, 512, 3, 4, 2, 4096, 16, 8192),
    Tried(768, 2048, 8, 12, 4, 16000, 16, 768),
    Tried(1024, 2816, 4, 16, 16, 16000, 32, 768),
    Tried(1024, 2816, 12, 16, 4, 49152, 16, 256),
]
"""Held out too, each with more tokens, layers × width or weights than any of the calibration."""


CHECKPOINTED = [
    Tried(320, 960, 10, 5, 5, 8192, 16, 3072, checkpointed=True),
    Tried(512, 1536, 6, 8, 4, 16000, 8, 2048, checkpointed=True),
    Tried(192, 768, 16, 3, 3, 4096, 32, 4096, checkpointed=True),
]


class Measured(NamedTuple):
    """A training that was measured: peak in bytes, and seconds."""

    shape: Shape
    peak: float
    seconds: float


def measure(tried: Tried) -> Measured:
    """Make a base of that shape, and train an adapter of it; both in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _forked(_make_base, tried, folder)
        _forked(_train, tried, folder)
        found = json.loads((folder / "measured.json").read_text())
    return Measured(
        tried.shape(found["parameters"], found["tokens"]), found["peak"], found["seconds"]
    )


def _forked(work: Any, *given: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__}{given}: ended with {process.exitcode}")


def _make_base(tried: Tried, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=tried.hidden,
        intermediate_size=tried.intermediate,
        num_hidden_layers=tried.layers,
        num_attention_heads=tried.heads,
        num_key_value_heads=tried.kv_heads,
        vocab_size=tried.vocabulary,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _train(tried: Tried, folder: Path) -> None:
    import torch

    from meetara_build.training.kernels.lora import attach
    from meetara_build.training.loop import train
    from meetara_build.training.model import load_model
    from meetara_build.training.settings import Settings

    torch.set_num_threads(1)
    started = time.monotonic()
    model = load_model(folder, torch.float32)
    parameters = model.num_parameters()
    adapted = attach(model, {**LORA, "rank": tried.rank}, seed=0)
    records = _records(tried)
    settings = Settings(
        epochs=1,
        batch_tokens=tried.tokens,
        learning_rate=1e-3,
        gradient_checkpointing=tried.checkpointed,
    )
    train(adapted, records, records[:8], settings)
    figures = {
        "parameters": parameters,
        "tokens": tried.tokens,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": time.monotonic() - started,
    }
    (folder / "measured.json").write_text(json.dumps(figures))


def _records(tried: Tried) -> list[Any]:
    """Random records for one full step and a smaller one, the second half of each an answer."""
    from meetara_build.training.chat import Encoded

    chance, found, left = random.Random(0), [], int(1.3 * tried.tokens)
    while left > 0:
        length = min(chance.randint(32, 256), max(left, 16))
        ids = [chance.randrange(tried.vocabulary) for _ in range(length)]
        found.append(Encoded(ids, [place >= length // 2 for place in range(length)]))
        left -= length
    return found


def report(title: str, model: MemoryModel, runs: Mapping[Tried, Measured]) -> list[float]:
    """A line for each training; the errors."""
    print(f"\n{title}")
    print(
        "hidden  inner  layers   vocab  rank  tokens   measured  predicted   error  without the fixed part  seconds"
    )
    errors = []
    for tried, run in runs.items():
        predicted = model.peak_bytes(run.shape)
        error, above = (
            predicted / run.peak - 1,
            (predicted - run.peak) / (run.peak - model.costs[0]),
        )
        errors.append(error)
        print(
            f"{tried.hidden:6} {tried.intermediate:6} {tried.layers:7} {tried.vocabulary:7} {tried.rank:5} {tried.tokens:7}"
            f" {run.peak / 1e6:7.0f} MB {predicted / 1e6:7.0f} MB {error:7.1%} {above:23.1%} {run.seconds:8.1f}",
            flush=True,
        )
    return errors


def summary(name: str, errors: Sequence[float]) -> str:
    """The errors in a line."""
    sizes = [abs(error) for error in errors]
    within = sum(size <= BOUND for size in sizes)
    return f"{name}: median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}, within {BOUND:.0%}: {within} of {len(sizes)}"


def main() -> None:
    """Print the report."""
    from meetara_build.engine.warm import load_all

    warnings.simplefilter("ignore")
    print(machine.describe())
    started = time.monotonic()
    load_all()
    calibration = {tried: measure(tried) for tried in CALIBRATION}
    held_out = {tried: measure(tried) for tried in HELD_OUT}
    larger = {tried: measure(tried) for tried in LARGER}
    checkpointed = {tried: measure(tried) for tried in CHECKPOINTED}
    code = fit_model([])
    model = fit_model([(run.shape, run.peak) for run in calibration.values()])
    seen = report("calibration", model, calibration)
    unseen = report("held out, within the calibration's range", model, held_out)
    beyond = report("held out, larger than any of the calibration", model, larger)
    saving = report("held out, with gradient checkpointing", model, checkpointed)
    held_out_errors = [*unseen, *beyond, *saving]
    print(f"\n{summary('calibration', seen)}\n{summary('held out', held_out_errors)}")
    print(summary("of these, larger than any of the calibration", beyond))
    print(summary("of these, with gradient checkpointing", saving))
    by_code = [
        code.peak_bytes(run.shape) / run.peak - 1
        for run in [*held_out.values(), *larger.values(), *checkpointed.values()]
    ]
    print(summary("held out, by the code's figures alone, nothing measured", by_code))
    print(
        f"{len(calibration) + len(held_out_errors)} trainings in {(time.monotonic() - started) / 60:.1f} min"
    )
    found = {
        "shapes": len(held_out_errors),
        "checkpointed": len(saving),
        "median": statistics.median(map(abs, held_out_errors)),
        "worst": max(map(abs, held_out_errors)),
        "worst_without_checkpointing": max(map(abs, [*unseen, *beyond])),
    }
    keep_result("agents_memory", found)
    if any(abs(error) > BOUND for error in held_out_errors):
        raise SystemExit(f"a predicted peak is more than {BOUND:.0%} off")


if __name__ == "__main__":
    main()
