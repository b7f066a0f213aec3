"""The gates on random small models of many architectures:
`python bench/architectures.py [--cut gpt2] [KIND…]`.

The bases are in bfloat16, as published ones are; each is adapted for three steps at the default
rate and at a high one. Prints, for each, how far the F16 file's logits are from those of base +
adapter in float32 (as a share of their spread; the bound is 0.02), how far the LoRA file's are, and
how many texts were cut into the same tokens both ways.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests")]
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from gguf_builds import Build, fresh, recipe, train_nothing  # noqa: E402
from transformers.utils import logging  # noqa: E402

from bench.result_files import keep_result  # noqa: E402
from meetara_build.errors import MeetaraError  # noqa: E402
from meetara_build.stages import adapter, gguf  # noqa: E402
from meetara_build.stages.recipes.adapter import AdapterRecipe  # noqa: E402
from meetara_build.training.model import load_model  # noqa: E402

GEMMA = {"head_dim": 64, "query_pre_attn_scalar": 64}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "norm_topk_prob": True,
}
KINDS: dict[str, dict[str, Any]] = {
    **{
        kind: {}
        for kind in (
            "llama",
            "qwen2",
            "phi3",
            "mistral",
            "olmo",
            "olmo2",
            "olmo3",
            "stablelm",
            "granite",
        )
    },
    **{
        kind: {}
        for kind in (
            "smollm3",
            "starcoder2",
            "gpt2",
            "gpt_neox",
            "bloom",
            "cohere",
            "glm4",
            "exaone4",
        )
    },
    **{kind: {} for kind in ("nemotron", "ernie4_5", "apertus", "mixtral")},
    **{kind: {"head_dim": 64} for kind in ("gemma", "qwen3", "seed_oss", "hunyuan_v1_dense")},
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "phi": {"num_key_value_heads": 4, "intermediate_size": 1024},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "qwen3_moe": {"head_dim": 64, **EXPERTS},
}
SPARSE = {"mixtral": ["q_proj", "v_proj"], "qwen3_moe": ["q_proj", "v_proj"]}


RATES = {"default": 2.0e-4, "high": 5.0e-3}
STEPS = 3


def train_adapter(kind: str, build: Build, rate: float, folder: Path) -> dict[str, Path]:
    """Inputs of the gguf stage: an adapter trained on a bfloat16 base by the stages themselves, and
    merged by them."""
    targets = SPARSE.get(kind, "all-linear")
    training = {
        "epochs": 1,
        "max_steps": STEPS,
        "batch_tokens": 256,
        "micro_batch_tokens": None,
        "learning_rate": rate,
    }
    training |= {
        "warmup_share": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "patience": 3,
    }
    training["validations_per_epoch"] = 1
    settings = {
        "domain": kind,
        "base": "tiny",
        "seed": 17,
        "threads": 1,
        "device": "cpu",
        "precision": "float32",
        "loss_on_prompt": False,
    }
    lora = {
        "rank": 16,
        "alpha": 32,
        "dropout": 0.0,
        "targets": targets,
        "rslora": False,
        "dora": False,
    }
    inputs = {"base": build.base, "dataset": build.dataset}
    inputs["adapter"] = fresh(folder / "adapter")
    asked = {**settings, "max_tokens": 512, "lora": lora, "training": training}
    adapter.run(
        AdapterRecipe.model_validate(asked),
        inputs,
        inputs["adapter"],
    )
    inputs["base_gguf"] = fresh(folder / "base_gguf")
    gguf.run(recipe(name="tiny", domain=None), {"base": build.base}, inputs["base_gguf"])
    return inputs


def measure(kind: str, cut: str, rate: float, root: Path) -> dict[str, Any]:
    """What one run showed: distances, texts and how they were cut, CPU-seconds; or why it was
    refused."""
    build = train_nothing(
        root / "build",
        kind,
        cut,
        {"target_modules": SPARSE[kind]} if kind in SPARSE else {},
        **KINDS[kind],
    )
    load_model(build.base, torch.float32).to(torch.bfloat16).save_pretrained(build.base)
    started = time.process_time()
    output = fresh(root / "out")
    try:
        inputs = train_adapter(kind, build, rate, root)
        inputs["merged"] = fresh(root / "merged")
        figures = build.merge(inputs, inputs["merged"], domain=kind)
        gguf.run(
            recipe(name=kind, domain=kind, quants=["Q8_0", "Q4_K_M"], lora=True), inputs, output
        )
    except MeetaraError as error:
        return {"refused": f"{type(error).__name__}: {str(error)[:140]}"}
    seconds = time.process_time() - started
    report = json.loads((output / "proof.json").read_text())
    tokens = json.loads((inputs["base_gguf"] / "proof.json").read_text())["tokens"]
    return {
        "worst": figures["logits_distance"],
        "whole": figures.get("converted_whole", ""),
        "lora": report["lora"]["worst"],
        "texts": tokens["texts"],
        "cut": str(tokens["cut"]),
        "cpu_seconds": round(seconds, 2),
    }


def describe_run(run: dict[str, Any]) -> str:
    """One line of the table."""
    if "refused" in run:
        return f"refused: {run['refused']}"
    distances = f"{run['worst']:9.1e} {run['lora']:9.1e}"
    figures = f"{distances} {run['texts']:6d} {run['cut']:12} {run['cpu_seconds']:6.2f}"
    return f"{figures} {run['whole']}"


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What docs/figures.md says of all runs: how many architectures pass at every rate, and the
    largest distances."""
    passed = [run for run in runs if "refused" not in run]
    refused = {run["architecture"] for run in runs if "refused" in run}
    by_lora = sorted(passed, key=lambda run: -run["lora"])
    return {
        "passed": len({run["architecture"] for run in passed} - refused),
        "refused": len(refused),
        "worst": max(run["worst"] for run in passed),
        "lora": {
            "worst": by_lora[0]["lora"],
            "architecture": by_lora[0]["architecture"],
            "rate": by_lora[0]["rate"],
            "others": by_lora[1]["lora"],
        },
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument(
        "--cut", default="gpt2", help="gpt2, smollm, llama3, qwen2 or a regular expression"
    )
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{platform.machine()}, Python {platform.python_version()}, tokenizer cut {options.cut}")
    print(
        f"{'architecture':18} {'rate':8} {'F16 worst':>9} {'LoRA':>9} {'texts':>6} {'cut':12} {'CPU s':>6} converted whole because"
    )
    runs = []
    for kind in options.kinds:
        for name, rate in RATES.items():
            with tempfile.TemporaryDirectory() as scratch:
                run = measure(kind, options.cut, rate, Path(scratch))
            runs.append({"architecture": kind, "rate": name, **run})
            print(f"{kind:18} {name:8} {describe_run(run)}", flush=True)
    if options.kinds == list(KINDS):
        keep_result("architectures", {"summary": summarize(runs), "runs": runs})


if __name__ == "__main__":
    main()
