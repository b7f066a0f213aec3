"""The domain's folder for people: Ollama Modelfile, model card and checksums, if the models reach
their bounds."""

import hashlib
from pathlib import Path
from typing import Any

from meetara_build.outside import parse_json
from meetara_build.stages.package.card import model_card
from meetara_build.stages.package.files import find_default, list_files
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
    files = list_files(recipe)
    use = find_default(recipe)
    adapter = use.adapter.seen if use.adapter else None
    (output / "Modelfile").write_text(
        modelfile(recipe.system_prompt, use.model.seen, inputs["base"], adapter), encoding="utf-8"
    )
    card = parse_json((inputs["dataset"] / "card.json").read_text(encoding="utf-8"))
    training = parse_json((inputs["adapter"] / "training.json").read_text(encoding="utf-8"))
    text = model_card(recipe, evaluation, card, training, _origin(inputs["base"]))
    (output / "README.md").write_text(text, encoding="utf-8")
    named = {file.seen: inputs[file.input] / file.name for file in files} | {
        name: output / name for name in ("Modelfile", "README.md")
    }
    lines = [f"{_sha256(path)}  {name}" for name, path in named.items()]
    (output / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return passed


def _origin(base: Path) -> dict[str, Any] | None:
    """What the base stage says of the GGUF file that it took the base back from; None for any other
    base."""
    path = base / "origin.json"
    return dict(parse_json(path.read_text(encoding="utf-8"))) if path.exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
