"""The domain's folder for people: Ollama Modelfile, model card and checksums, if the models reach
their bounds."""

import hashlib
from pathlib import Path
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.stages.package.card import model_card
from meetara_build.stages.package.gate import check_bounds
from meetara_build.stages.package.modelfile import modelfile
from meetara_build.stages.recipes.package import PackageRecipe
from meetara_build.stages.types import Inputs, Metrics

SUMS = "SHA256SUMS"


def run(recipe: PackageRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``Modelfile``, ``README.md`` and ``SHA256SUMS``.

    Raises:
        GateError: a held-out figure misses the domain's bound.
    """
    evaluation = parse_json((inputs["evaluation"] / "evaluation.json").read_text(encoding="utf-8"))
    passed = check_bounds(recipe, evaluation)
    files = [inputs["gguf"] / name for name in _models(recipe)]
    default = _default(recipe)
    (output / "Modelfile").write_text(
        modelfile(recipe.system_prompt, default, inputs["base"]), encoding="utf-8"
    )
    card = parse_json((inputs["dataset"] / "card.json").read_text(encoding="utf-8"))
    training = parse_json((inputs["adapter"] / "training.json").read_text(encoding="utf-8"))
    sizes = {path.name: path.stat().st_size for path in files}
    text = model_card(recipe, default, evaluation, card, training, sizes, _origin(inputs["base"]))
    (output / "README.md").write_text(text, encoding="utf-8")
    named = {f"../gguf/{path.name}": path for path in files} | {
        name: output / name for name in ("Modelfile", "README.md")
    }
    lines = [f"{_sha256(path)}  {name}" for name, path in named.items()]
    (output / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return passed


def _models(recipe: PackageRecipe) -> list[str]:
    """The domain's GGUF files: what else lies in their folder was left behind, and nobody proved
    it."""
    kinds = {"F16", *recipe.quants, *(["lora"] if recipe.lora else [])}
    return sorted(f"{recipe.domain}-{kind}.gguf" for kind in kinds)


def _default(recipe: PackageRecipe) -> str:
    """The file that the Modelfile names: the last of the domain's types, by custom the smallest."""
    return f"{recipe.domain}-{recipe.quants[-1]}.gguf"


def _origin(base: Path) -> dict[str, Any] | None:
    """What the base stage says of the GGUF file that it took the base back from; None for any other
    base."""
    path = base / "origin.json"
    return dict(parse_json(path.read_text(encoding="utf-8"))) if path.exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
