"""The package: bounds that hold it back, a Modelfile, a card with the figures, checksums."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_templates import FAMILIES, save_tokenizer
from huggingface_hub import ModelCard
from ollama import small_file
from packages import RECIPE, altered, evaluation
from transformers import AutoTokenizer

from meetara_build.errors import GateError
from meetara_build.stages import package


def inputs(folder: Path, figures: dict[str, Any], family: str = "chatml") -> dict[str, Path]:
    def write(name: str, content: Any) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    write("evaluation/evaluation.json", figures)
    counts = {
        "kept": 40,
        "read": 44,
        "bad": 1,
        "dropped": 3,
        "train": 30,
        "validation": 4,
        "test": 6,
    }
    write(
        "dataset/card.json",
        {"counts": counts, "dropped_by_reason": {"too long": 3}, "changed_texts": {}},
    )
    write(
        "adapter/training.json",
        {"steps": 20, "best_step": 18, "validation_loss_before": 3.0, "validation_loss_after": 2.5},
    )
    (folder / "gguf").mkdir()
    for name in ("nutrition-F16.gguf", "nutrition-Q4_K_M.gguf", "nutrition-lora.gguf"):
        (folder / "gguf" / name).write_bytes(name.encode() * 1000)
    shutil.copyfile(small_file(family), folder / "gguf" / "nutrition-Q4_K_M.gguf")
    save_tokenizer(FAMILIES[family], folder / "base")
    (folder / "package").mkdir()
    return {name: folder / name for name in ("evaluation", "dataset", "adapter", "gguf", "base")}


def card(
    tmp_path: Path, counts: dict[str, int], dropped: dict[str, int], changed: dict[str, int]
) -> str:
    """The model card of a package whose data set has this card."""
    given = inputs(tmp_path, evaluation())
    path = given["dataset"] / "card.json"
    content = json.loads(path.read_text())
    content["counts"] |= counts
    path.write_text(json.dumps(content | {"dropped_by_reason": dropped, "changed_texts": changed}))
    package.run(RECIPE, given, tmp_path / "package")
    return (tmp_path / "package" / "README.md").read_text(encoding="utf-8")


def test_the_model_card_says_where_many_records_were_left_out_and_which_key_decides(
    tmp_path: Path,
) -> None:
    text = card(
        tmp_path,
        {"read": 1012, "kept": 60, "dropped": 950, "bad": 2},
        {"too long": 950},
        {"line ends": 7},
    )
    assert (
        "952 of 1,012 records (94%) are left out: 950 too long (data.max_tokens), 2 bad (data.max_bad_share)."
        in text
    )
    assert "Texts were changed (records): line ends in 7." in text


def test_the_model_card_says_nothing_of_few_losses_and_of_texts_that_were_not_changed(
    tmp_path: Path,
) -> None:
    text = card(tmp_path, {}, {"too long": 3}, {})
    assert "left out" not in text
    assert "changed" not in text


def test_nothing_is_written_where_a_bound_is_missed(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation(f16=2.1))
    with pytest.raises(GateError):
        package.run(RECIPE, given, tmp_path / "package")
    assert list((tmp_path / "package").iterdir()) == []


# The folder


def test_the_folder_holds_modelfile_card_and_sums_of_all_that_belongs_to_it(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation())
    metrics = package.run(RECIPE, given, tmp_path / "package")
    assert metrics == {"base_loss": 2.0, "loss": 1.8, "improvement": 0.1}
    assert sorted(path.name for path in (tmp_path / "package").iterdir()) == [
        "Modelfile",
        "README.md",
        "SHA256SUMS",
    ]
    lines = dict(
        line.split("  ")[::-1]
        for line in (tmp_path / "package" / "SHA256SUMS").read_text().splitlines()
    )
    assert set(lines) == {
        "Modelfile",
        "README.md",
        "../gguf/nutrition-F16.gguf",
        "../gguf/nutrition-Q4_K_M.gguf",
        "../gguf/nutrition-lora.gguf",
    }
    for name, digest in lines.items():
        assert hashlib.sha256((tmp_path / "package" / name).read_bytes()).hexdigest() == digest


def test_the_modelfile_names_the_smallest_file_beside_it(tmp_path: Path) -> None:
    package.run(RECIPE, inputs(tmp_path, evaluation()), tmp_path / "package")
    text = (tmp_path / "package" / "Modelfile").read_text()
    assert text.startswith("FROM ../gguf/nutrition-Q4_K_M.gguf\n")
    assert text.endswith('\nSYSTEM """You are a dietitian."""\n')


def test_a_base_whose_template_ollama_cannot_be_told_has_no_modelfile(tmp_path: Path) -> None:
    """A wrong one would be worse than none; the card names what cannot be said."""
    given = inputs(tmp_path, evaluation(), family="mistral3")
    package.run(RECIPE, given, tmp_path / "package")
    assert not (tmp_path / "package" / "Modelfile").exists()
    assert "Modelfile" not in (tmp_path / "package" / "SHA256SUMS").read_text()
    card = (tmp_path / "package" / "README.md").read_text()
    assert "Modelfile for Ollama: not written: Ollama would read " in card
    assert "ollama create" not in card
    assert "\nOpen `../gguf/nutrition-Q4_K_M.gguf` in llama.cpp or LM Studio." in card


def test_an_adapter_alone_is_packaged_with_the_files_of_its_base(tmp_path: Path) -> None:
    given = inputs(tmp_path / "nutrition", evaluation())
    base = tmp_path / "base" / "tiny"
    for name in ("gguf/tiny-F16.gguf", "quantized/tiny-Q4_K_M.gguf"):
        (base / name).parent.mkdir(parents=True)
        (base / name).write_bytes(name.encode())
    shutil.copyfile(small_file("chatml"), base / "quantized" / "tiny-Q4_K_M.gguf")
    folders = {"base_gguf": base / "gguf", "quantized": base / "quantized"}
    output = tmp_path / "nutrition" / "package"
    package.run(altered(files="lora"), {**given, **folders}, output)

    modelfile = (output / "Modelfile").read_text()
    first, second, *_ = modelfile.splitlines()
    assert first == "FROM ../../base/tiny/quantized/tiny-Q4_K_M.gguf"
    assert second == "ADAPTER ../gguf/nutrition-lora.gguf"
    assert modelfile.endswith('\nSYSTEM """You are a dietitian."""\n')
    lines = [line.split("  ") for line in (output / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {
        "Modelfile",
        "README.md",
        "../../base/tiny/gguf/tiny-F16.gguf",
        "../../base/tiny/quantized/tiny-Q4_K_M.gguf",
        "../gguf/nutrition-lora.gguf",
    }
    for digest, name in lines:
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == digest
    card = (output / "README.md").read_text()
    assert (
        "llama-cli -m ../../base/tiny/quantized/tiny-Q4_K_M.gguf --lora ../gguf/nutrition-lora.gguf"
        in card
    )
    assert "LM Studio loads no adapters" in card
    assert "merged" not in card


def test_the_card_says_what_was_measured_and_on_what(tmp_path: Path) -> None:
    package.run(RECIPE, inputs(tmp_path, evaluation()), tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    results = ModelCard(card, ignore_metadata_errors=False).data.eval_results
    assert results
    assert [(one.metric_name, one.metric_value) for one in results] == [
        (f"perplexity, {quant}", round(figures["perplexity"], 4))
        for quant, figures in evaluation()["variants"].items()
    ]
    known = yaml.safe_load(front)
    assert known.pop("model-index")[0]["name"] == "nutrition"
    assert known == {
        "license": "apache-2.0",
        "language": ["en", "es"],
        "base_model": "made by this build",
        "tags": ["gguf", "lora", "healthcare", "nutrition"],
    }
    assert "12 held-out records, 345 answer tokens" in text
    assert "KL and top token on 300 of them" in text
    assert re.search(r"\| base \| 0\.0 \| 2\.0000 \| 7\.50 \|  \|  \|", text)
    assert re.search(r"\| Q4_K_M \| 0\.0 \| 1\.9000 \| 7\.50 \| 0\.1000 \| 95\.0% \|", text)
    assert "40 of 44 records kept: 30 to train, 4 to validate, 6 held out." in text
    assert "20 steps, best at step 18; validation loss 3.0000 before, 2.5000 after." in text


@pytest.mark.parametrize(
    ("quantized", "said"), [("Q4_1", "quantized to Q4_1"), (None, "taken back from `x.gguf`.")]
)
def test_the_card_says_what_the_base_was_taken_back_from(
    quantized: str | None, said: str, tmp_path: Path
) -> None:
    given = inputs(tmp_path, evaluation())
    (given["base"] / "origin.json").write_text(
        json.dumps({"file": "x.gguf", "quantized": quantized})
    )
    package.run(RECIPE, given, tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    assert "`x.gguf`" in card
    assert said in card


@pytest.mark.parametrize(("safety", "warned"), [("strict", True), ("standard", False)])
def test_the_card_of_a_strict_domain_states_its_limits(
    safety: str, warned: bool, tmp_path: Path
) -> None:
    package.run(altered(safety=safety), inputs(tmp_path, evaluation()), tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    assert ("does not replace a professional" in card) == warned
    assert ("112, 911, 999" in card) == warned


def test_a_domain_that_trained_without_validation_records_has_a_card_too(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation())
    training = {
        "steps": 20,
        "best_step": 20,
        "validation_loss_before": None,
        "validation_loss_after": None,
    }
    (given["adapter"] / "training.json").write_text(json.dumps(training))
    package.run(RECIPE, given, tmp_path / "package")
    assert "20 steps" in (tmp_path / "package" / "README.md").read_text()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation())
    package.run(RECIPE, given, tmp_path / "package")
    (tmp_path / "again").mkdir()
    package.run(RECIPE, given, tmp_path / "again")
    for path in (tmp_path / "package").iterdir():
        if path.name != "SHA256SUMS":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_base_s_own_folder_is_enough_to_read_its_template(tmp_path: Path) -> None:
    """No network, no code from elsewhere: what base saved is all there is."""
    save_tokenizer(FAMILIES["phi3"], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(
        tmp_path, local_files_only=True, trust_remote_code=False
    )
    assert tokenizer.chat_template == FAMILIES["phi3"].template


def test_a_file_that_was_left_behind_is_not_packaged(tmp_path: Path) -> None:
    """Where someone deleted the store, files of types that are no longer asked for may lie there
    still."""
    given = inputs(tmp_path, evaluation())
    for left in ("nutrition-Q8_0.gguf", "other.gguf"):
        (given["gguf"] / left).write_bytes(b"of an earlier build")
    package.run(altered(files="merged"), given, tmp_path / "package")
    sums = (tmp_path / "package" / "SHA256SUMS").read_text()
    assert re.findall(r"gguf/(.*)\n", sums) == ["nutrition-F16.gguf", "nutrition-Q4_K_M.gguf"]
    assert "Q8_0" not in (tmp_path / "package" / "README.md").read_text()
