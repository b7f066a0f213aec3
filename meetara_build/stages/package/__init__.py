"""The domain's folder for people: model card and judged answers, and if the models reach their
bounds checksums, and an Ollama Modelfile where the base's chat template can be written into one.

A model that does not reach them is held back: that is a result, which is kept like any other.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meetara_build.errors import GateError, ProofError
from meetara_build.outside import parse_json
from meetara_build.stages.answer_lines import ANSWERS, VERDICT, read_lines, write_lines
from meetara_build.stages.package.card import model_card
from meetara_build.stages.package.files import find_default, list_files
from meetara_build.stages.package.gate import check_bounds
from meetara_build.stages.package.judging import Judged, count_findings, judge_files
from meetara_build.stages.package.modelfile import modelfile
from meetara_build.stages.recipes.package import PackageRecipe
from meetara_build.stages.types import HELD_BACK, Inputs, Metrics

SUMS, CARD, MODELFILE = "SHA256SUMS", "README.md", "Modelfile"


def run(recipe: PackageRecipe, inputs: Inputs, output: Path) -> Metrics:
    """Write ``README.md`` (the model card), ``answers.jsonl`` (the answers judged) and
    ``verdict.json``; and, unless the model is held back, ``SHA256SUMS`` and ``Modelfile``, where
    Ollama can be told the base's template; else the card says why not.

    What held it back is in the metrics, under ``held_back``: the error's code and message.
    """
    evaluation = parse_json((inputs["evaluation"] / "evaluation.json").read_text(encoding="utf-8"))
    lines = read_lines(inputs["evaluation"] / ANSWERS, "evaluate")
    judged = judge_files(recipe, inputs, lines)
    write_lines(output / ANSWERS, _add_findings(lines, judged))
    counted = {name: count_findings(answers) for name, answers in judged.items()}
    passed, refusal = dict[str, Any](), None
    try:
        passed = check_bounds(recipe, evaluation, judged)
    except GateError as missed:
        refusal = {"code": missed.code, "message": str(missed)}
    verdict = {"answers": counted, HELD_BACK: refusal}
    (output / VERDICT).write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
    card = parse_json((inputs["dataset"] / "card.json").read_text(encoding="utf-8"))
    training = parse_json((inputs["adapter"] / "training.json").read_text(encoding="utf-8"))
    message = refusal["message"] if refusal else None
    not_written = _write_modelfile(recipe, inputs, output) if refusal is None else None
    text = model_card(
        recipe, evaluation, card, training, judged, _origin(inputs["base"]), message, not_written
    )
    (output / CARD).write_text(text, encoding="utf-8")
    if refusal is not None:
        return verdict
    _write_sums(recipe, inputs, output)
    return {"answers": counted, **passed}


def _write_modelfile(recipe: PackageRecipe, inputs: Inputs, output: Path) -> str | None:
    """Write the Modelfile; why it is not written, if so: a wrong one would be worse than none."""
    use = find_default(recipe)
    model = inputs[use.model.input] / use.model.name
    adapter = use.adapter.seen if use.adapter else None
    try:
        text = modelfile(recipe.system_prompt, use.model.seen, inputs["base"], model, adapter)
    except ProofError as error:
        return str(error)
    (output / MODELFILE).write_text(text, encoding="utf-8")
    return None


def _write_sums(recipe: PackageRecipe, inputs: Inputs, output: Path) -> None:
    """The checksums of all that is used."""
    named = {file.seen: inputs[file.input] / file.name for file in list_files(recipe)} | {
        name: output / name
        for name in (MODELFILE, CARD, ANSWERS, VERDICT)
        if name != MODELFILE or (output / name).exists()
    }
    sums = [f"{_sha256(path)}  {name}" for name, path in named.items()]
    (output / SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")


def _add_findings(
    lines: Sequence[Mapping[str, Any]], judged: Mapping[str, Sequence[Judged]]
) -> list[dict[str, Any]]:
    """The lines of the evaluation, with what was found in each answer."""
    return [
        {
            **line,
            "answers": {
                name: {**said, **judged[name][at].describe()}
                for name, said in line["answers"].items()
            },
        }
        for at, line in enumerate(lines)
    ]


def _origin(base: Path) -> dict[str, Any] | None:
    """What the base stage says of the GGUF file that it took the base back from; None for any other
    base."""
    path = base / "origin.json"
    return dict(parse_json(path.read_text(encoding="utf-8"))) if path.exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
