"""What rounding takes from an adapter on its way into an F16 file: merged weights handed on in
float32, and in the base's bfloat16.

python -m bench.rounding [--steps 3]

The base that comes with the tool, held in bfloat16 as all public bases are; an adapter trained for
a few steps at the base's rate. Prints, both ways: how far the F16 file's logits are from base +
adapter in float32 (as a share of their spread, largest and mean), and the share of the weights that
the adapter changes which rounding makes the base's again.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from bench import machine
from bench.result_files import keep_result
from meetara_build.cli.init import init
from meetara_build.engine.stage_run import run
from meetara_build.graph import load
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import gguf
from meetara_build.stages.gguf import proof
from meetara_build.stages.recipes.gguf import GgufRecipe
from meetara_build.training.chat import encode, read_records
from meetara_build.training.model import load_model, load_tokenizer

DOMAIN = "study_techniques"
TEXTS = 4


def train_adapter(folder: Path, steps: int) -> tuple[Path, Path, Path]:
    """Base in bfloat16, adapter and dataset of one domain."""
    init(folder)
    graph = load(folder)
    for step in graph.above([("base", "base/smollm2_135m")]):
        run(graph, step, cold=True)
    published = folder / "models" / "published"
    model = load_model(folder / "artifacts" / "base" / "smollm2_135m" / "model", torch.float32)
    model.to(torch.bfloat16).save_pretrained(published)
    load_tokenizer(
        folder / "artifacts" / "base" / "smollm2_135m" / "model", torch.float32
    ).save_pretrained(published)
    (folder / "conf" / "base" / "published.yaml").write_text(
        "# @package _global_\nbase:\n  description: SmolLM2 135M Instruct in bfloat16\n  licence: apache-2.0\n"
        "  chat_template: chatml\n  parameters: 134515008\n  folder: models/published\n"
        f"training: {{learning_rate: 1.0e-3, max_steps: {steps}}}\n"
    )
    build = folder / "conf" / "build.yaml"
    build.write_text(build.read_text().replace("- base: smollm2_135m", "- base: published"))
    graph = load(folder)
    for step in graph.above([("adapter", DOMAIN)]):
        run(graph, step, cold=True)
    root = folder / "artifacts"
    return root / "base" / "published", root / DOMAIN / "adapter", root / DOMAIN / "dataset"


def compare(base: Path, adapter: Path, dataset: Path, scratch: Path) -> dict[str, dict[str, float]]:
    """Figures of the F16 file by what its weights were merged in."""
    tokenizer = load_tokenizer(base)
    records = [
        record
        for _, record in zip(range(TEXTS), read_records(dataset / "validation.jsonl"), strict=False)
    ]
    texts = [encode(tokenizer, record["messages"]).ids[:256] for record in records]
    adapted = PeftModel.from_pretrained(load_model(base, torch.float32), str(adapter)).eval()
    expected = [proof.torch_logits(adapted, ids) for ids in texts]
    merged = adapted.merge_and_unload()
    before = {
        name: weight.float() for name, weight in load_file(base / "model.safetensors").items()
    }
    exact = {name: weight.clone() for name, weight in merged.state_dict().items()}
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        folder = scratch / name
        merged.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        given = load_file(folder / "model.safetensors")
        changed = back = 0
        for key, old in before.items():
            moved = exact[key] != old
            # What the F16 file holds of it: the converter rounds what it is given once more.
            changed += int(moved.sum())
            back += int((given[key].half().float() == old.half().float())[moved].sum())
        recipe: dict[str, Any] = {
            **dict.fromkeys(("name", "domain", "base", "licence", "recipe"), name),
            "quants": ["F16"],
            "imatrix": False,
            "lora": False,
            "tensor_types": {},
            "threads": 2,
            "logits_bound": 1.0,
            "system_prompt": None,
        }
        output = scratch / f"{name}-gguf"
        output.mkdir()
        gguf.run(GgufRecipe.model_validate(recipe), {"base": folder}, output)
        with (
            Model(output / f"{name}-F16.gguf") as model,
            model.session(256, threads=2, exact=True) as session,
        ):
            shares = [
                proof.distances(theirs, session.logits(ids))
                for theirs, ids in zip(expected, texts, strict=True)
            ]
        flat = torch.cat([torch.from_numpy(share) for share in shares])
        found[name] = {
            "largest": float(flat.max()),
            "mean": float(flat.mean()),
            "taken_back": back / changed,
        }
    return found


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--steps", type=int, default=3)
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folders = train_adapter(Path(scratch) / "project", given.steps)
        found = {
            name: {key: float(f"{value:.3g}") for key, value in figures.items()}
            for name, figures in compare(*folders, Path(scratch)).items()
        }
    for name, figures in found.items():
        print(f"merged in {name:9}", figures)
    keep_result("rounding", {"steps": given.steps, **found})


if __name__ == "__main__":
    main()
