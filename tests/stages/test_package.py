"""The package: bounds that hold it back, a Modelfile, a card with the figures, checksums."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_templates import FAMILIES, save_tokenizer
from huggingface_hub import ModelCard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from ollama import small_file
from packages import GOOD, RECIPE, all_said, altered, asked, evaluation, write_dataset
from transformers import AutoTokenizer

from meetara_build.errors import ArtifactError
from meetara_build.stages import package
from meetara_build.stages.answer_lines import read_lines, write_lines
from meetara_build.stages.package.card import _quote
from meetara_build.stages.package.judging import show_on_line


def inputs(
    folder: Path,
    figures: dict[str, Any],
    answers: Sequence[Mapping[str, Any]] = (),
    family: str = "chatml",
) -> dict[str, Path]:
    """What the stage reads: these held-out figures and answers, and everything else as it is after a
    training."""

    def write(name: str, content: Any) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    write("evaluation/evaluation.json", figures)
    write_lines(folder / "evaluation" / "answers.jsonl", answers)
    write_dataset(folder / "dataset")
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


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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


def test_what_misses_a_bound_has_a_card_that_says_so_and_nothing_to_use(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation(f16=2.1), all_said(GOOD))
    metrics = package.run(RECIPE, given, tmp_path / "package")
    assert metrics["held_back"]["code"] == "gate-loss"
    message = metrics["held_back"]["message"]
    assert message.startswith("nutrition: not packaged:\n  F16: held-out loss 2.1000")
    assert "loss" not in metrics, "a figure that passed"
    assert list_names(tmp_path / "package") == {"README.md", "answers.jsonl", "verdict.json"}
    card = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    assert f"## Held back\n\nThis model is not packaged:\n\n```\n{message}\n```" in card
    assert "ollama create" not in card
    assert "## Figures" in card


# The folder


def test_the_folder_holds_modelfile_card_and_sums_of_all_that_belongs_to_it(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation())
    metrics = package.run(RECIPE, given, tmp_path / "package")
    assert metrics == {"answers": {}, "base_loss": 2.0, "loss": 1.8, "improvement": 0.1}
    assert list_names(tmp_path / "package") == {
        "Modelfile",
        "README.md",
        "SHA256SUMS",
        "answers.jsonl",
        "verdict.json",
    }
    lines = dict(
        line.split("  ")[::-1]
        for line in (tmp_path / "package" / "SHA256SUMS").read_text().splitlines()
    )
    assert set(lines) == {
        "Modelfile",
        "README.md",
        "answers.jsonl",
        "verdict.json",
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
        "answers.jsonl",
        "verdict.json",
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


# Answers


def make(tmp_path: Path, answers: Sequence[Mapping[str, Any]], **changes: Any) -> str:
    """The model card of a package with these answers."""
    package.run(altered(**changes), inputs(tmp_path, evaluation(), answers), tmp_path / "package")
    return (tmp_path / "package" / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_answers_that_may_do_harm_hold_the_model_back(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation(), all_said(f"{GOOD} Call 504 now.", GOOD))
    metrics = package.run(RECIPE, given, tmp_path / "package")
    assert metrics["held_back"]["code"] == "gate-answers"
    assert metrics["answers"]["F16"]["harmful"] == 0.5
    assert metrics["answers"]["base"]["harmful"] == 0
    assert list_names(tmp_path / "package") == {"README.md", "answers.jsonl", "verdict.json"}


def test_every_answer_is_there_with_what_was_found_in_it(tmp_path: Path) -> None:
    said = [asked({"Q4_K_M": f"{GOOD} Call 504 now.\u2028\x1b[31m"}), asked({})]
    package.run(RECIPE, inputs(tmp_path, evaluation(), said), tmp_path / "package")
    lines = read_lines(tmp_path / "package" / "answers.jsonl", "package")
    assert [list(line["answers"]) for line in lines] == [["base", "F16", "Q4_K_M"]] * 2
    for line, before in zip(lines, said, strict=True):
        for name, answer in line["answers"].items():
            findings, closeness = answer.pop("findings"), answer.pop("closeness")
            assert 0 <= closeness <= 100
            assert answer == before["answers"][name]
            harmful = {one["check"] for one in findings if one["harmful"]}
            assert harmful == ({"calls"} if "504" in answer["text"] else set())


def test_the_card_says_how_often_base_and_files_failed(tmp_path: Path) -> None:
    card = make(tmp_path, [asked({"base": "Call 504 now."}), asked({"Q4_K_M": ""})], harm={})
    text = section(card, "Answers")
    assert re.search(r"\| base \| 2 \| 50% \| 50% \| 50% \(15% to 85%\) \| \d+\.\d \|", text)
    assert re.search(r"\| F16 \| 2 \| 0% \| 0% \| 75% \(15% to 85%\) \| 100\.0 \|", text)
    assert re.search(r"\| Q4_K_M \| 2 \| 50% \| 50% \|  \| 50\.0 \|", text)
    assert "| tells nobody to call a number that is unknown | 50% | 0% |" in text
    assert "| ends by itself, with a whole sentence | 0% | 50% |" in text


def test_the_card_names_the_checks_that_were_not_applied(tmp_path: Path) -> None:
    text = section(make(tmp_path / "with", all_said(GOOD)), "Answers")
    assert "Not judged here: topic, closeness." in text  # there is no sample
    text = section(make(tmp_path / "without", all_said(GOOD), lists={}), "Answers")
    assert "Not judged here: calls, referral, topic, closeness." in text
    assert "tells nobody to call" not in text


def test_the_card_shows_the_three_worst_answers_of_the_file_that_it_tells_to_use(
    tmp_path: Path,
) -> None:
    said = ["Call 504 now.", GOOD, "Wait and see, and", f"{GOOD} Ring 0800 555 0143.", GOOD]
    lines = [asked({"Q4_K_M": text}, prompt=f"Question {at}?") for at, text in enumerate(said)]
    text = section(make(tmp_path, lines, harm={}), "Answers")
    assert re.findall(r"> Asked: `Question (\d)\?`", text) == ["0", "2", "3"]
    assert "> Said: `Call 504 now.`" in text
    assert "tells people to call 504, which is no known number" in text


def test_an_empty_answer_and_one_without_fault_are_shown_as_such(tmp_path: Path) -> None:
    text = section(make(tmp_path, [asked({"Q4_K_M": " \n"}), asked({})], harm={}), "Answers")
    assert "> Said: nothing\n>\n> Found: `says nothing" in text
    assert "> Found: nothing" in text


def test_without_a_held_out_prompt_nothing_is_judged_and_the_model_is_packaged(
    tmp_path: Path,
) -> None:
    card = make(tmp_path, [])
    assert "## Answers" not in card
    assert "ollama create" in card
    assert (tmp_path / "package" / "answers.jsonl").read_bytes() == b""
    assert "answers.jsonl" in (tmp_path / "package" / "SHA256SUMS").read_text()


def test_an_evaluation_without_its_answers_is_refused_by_name(tmp_path: Path) -> None:
    given = inputs(tmp_path, evaluation())
    (given["evaluation"] / "answers.jsonl").unlink()
    with pytest.raises(
        ArtifactError,
        match=r"^evaluation/answers.jsonl: no such file. Build the evaluate stage again.$",
    ):
        package.run(RECIPE, given, tmp_path / "package")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_has_a_card_too(tmp_path: Path, loss: float) -> None:
    metrics = package.run(RECIPE, inputs(tmp_path, evaluation(f16=loss)), tmp_path / "package")
    assert metrics["held_back"]["code"] == "gate-loss"
    assert str(loss) in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")


TRICKS = (
    "```\n# Title\n```",
    "````",
    "`code` ``more``",
    "<script>alert(1)</script> <!-- x",
    "[link](https://elsewhere.example.org) ![image](x.png)",
    "https://elsewhere.example.org www.elsewhere.example.org me@example.org",
    "\n\n# Title\n\n- item\n\n---\n\n> quoted",
    "| a | b |\n|---|---|\n| c | d |",
    "**bold** _em_ ~~gone~~ $x$ &lt;b&gt; \\",
    "\x1b[31mred\x07\u202eleft\u2028\x85",
)


def parse(text: str) -> list[Any]:
    """The tokens of Markdown, those within lines too."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [one for token in tokens for one in (token, *(token.children or ()))]


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_that_is_asked_or_said_becomes_markup(trick: str, tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", all_said(f"{GOOD} Call 504 now."))
    tricky = make(
        tmp_path / "tricky", all_said(f"{GOOD} Call 504 {trick} now.", prompt=f"What? {trick}")
    )
    for title in ("Held back", "Answers"):
        shapes = [
            [(one.type, one.tag, one.level) for one in parse(section(card, title))]
            for card in (plain, tricky)
        ]
        assert shapes[0] == shapes[1]
    assert all(char == "\n" or char.isprintable() for char in tricky)


@given(st.text(max_size=80))
@settings(max_examples=60)
def test_a_quoted_line_is_one_piece_of_code(text: str) -> None:
    line = show_on_line(text)
    assume(line)
    [inline] = [one for one in parse(f"> Said: {_quote(line)}") if one.type == "inline"]
    assert [one.type for one in inline.children] == ["text", "code_inline"]
    assert inline.children[1].content == line
