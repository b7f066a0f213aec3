"""What evaluation.json says agrees with what torch computes, and is the same each time."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from gguf_builds import Build, fresh, recipe, train_nothing

from meetara_build.errors import ArtifactError, DataError
from meetara_build.stages import baseline, evaluate, gguf, quantize
from meetara_build.stages.evaluate import choose, divergence
from meetara_build.stages.gguf.loading import load_tokenizer
from meetara_build.stages.held_out import log_softmax, sum_losses
from meetara_build.stages.recipes.baseline import BaselineRecipe
from meetara_build.stages.recipes.evaluate import EvaluateRecipe
from meetara_build.stages.recipes.quantize import QuantizeRecipe
from meetara_build.stages.types import Metrics
from meetara_build.training.chat import encode, read_records
from meetara_build.training.model import load_model

RECIPE = {
    "domain": "nutrition",
    "base": "tiny",
    "quants": ["F16", "Q8_0", "Q4_K_M"],
    "threads": 1,
    "context": None,
    "max_records": None,
    "kl_tokens": None,
}
BASE = {"domain": "nutrition", "base": "tiny", "threads": 1, "context": None, "max_records": None}


def run(recipe: Mapping[str, Any], inputs: Mapping[str, Path], output: Path) -> Metrics:
    """The stage, of a recipe that is written as JSON, after the base was measured on the same
    records."""
    own = {key: recipe[key] for key in (*BASE, "answers") if key in recipe}
    with TemporaryDirectory() as folder:
        if "baseline" not in inputs:
            baseline.run(BaselineRecipe.model_validate(own), inputs, Path(folder))
            inputs = {**inputs, "baseline": Path(folder)}
        return evaluate.run(EvaluateRecipe.model_validate(recipe), inputs, output)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return train_nothing(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def inputs(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("gguf")
    variants, base = fresh(root / "gguf"), fresh(root / "base_gguf")
    gguf.run(recipe(quants=["F16", "Q8_0", "Q4_K_M"]), {"base": build.merged}, variants)
    gguf.run(recipe(name="tiny"), {"base": build.base}, base)
    return {"gguf": variants, "base_gguf": base, "dataset": build.dataset, "base": build.base}


@pytest.fixture(scope="module")
def report(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    output = tmp_path_factory.mktemp("evaluation")
    run(RECIPE, inputs, output)
    return dict(json.loads((output / "evaluation.json").read_text()))


def torch_loss(folder: Path, dataset: Path) -> float:
    """The mean negative log-likelihood of a completion's token, by transformers."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32)
    total, tokens = 0.0, 0
    for record in read_records(dataset / "test.jsonl"):
        text = encode(tokenizer, record["messages"])
        with torch.inference_mode():
            scores = model(torch.tensor([text.ids])).logits[0, :-1].double().log_softmax(-1)
        said = torch.tensor(text.mask[1:])
        total -= scores[said, torch.tensor(text.ids[1:])[said]].sum().item()
        tokens += text.completion_tokens
    return total / tokens


def test_losses_are_those_of_torch(report: dict, build: Build) -> None:
    assert report["base"]["loss"] == pytest.approx(torch_loss(build.base, build.dataset), rel=2e-4)
    assert report["variants"]["F16"]["loss"] == pytest.approx(
        torch_loss(build.merged, build.dataset), rel=2e-4
    )


def test_each_variant_has_its_figures(report: dict, inputs: dict[str, Path]) -> None:
    assert report["records"] == 5
    assert report["truncated"] == report["skipped"] == 0
    assert set(report["variants"]) == {"F16", "Q8_0", "Q4_K_M"}
    for name, figures in report["variants"].items():
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-4)
        assert figures["bytes"] == (inputs["gguf"] / f"nutrition-{name}.gguf").stat().st_size


def test_coarser_types_are_further_from_f16(report: dict) -> None:
    fine, coarse = report["variants"]["Q8_0"], report["variants"]["Q4_K_M"]
    assert 0 < fine["kl_mean"] < coarse["kl_mean"] < coarse["kl_p99"]
    assert fine["top_token_agreement"] >= coarse["top_token_agreement"] > 0
    assert "kl_mean" not in report["variants"]["F16"]


def test_improvement_is_relative_to_the_base(report: dict) -> None:
    base, ours = report["base"]["loss"], report["variants"]["F16"]["loss"]
    assert report["improvement"] == pytest.approx((base - ours) / base, abs=1e-5)


def test_speeds_are_kept_apart_from_what_is_always_the_same(
    report: dict, inputs: dict[str, Path], tmp_path: Path
) -> None:
    metrics = run(RECIPE, inputs, tmp_path)
    again = json.loads((tmp_path / "evaluation.json").read_text())
    for speeds in (report.pop("measured"), again.pop("measured")):
        assert set(speeds) == {"base", "F16", "Q8_0", "Q4_K_M"}
        assert all("generated_tokens_per_second" in speeds[name] for name in ("F16", "Q4_K_M"))
        assert all(
            figure > 0
            for each in speeds.values()
            for name, figure in each.items()
            if name != "answer_cpu_seconds"  # nothing was asked
        )
    assert again == report
    assert metrics["base_loss"] == again["base"]["loss"]
    assert set(metrics["kl"]) == {"Q8_0", "Q4_K_M"}
    assert metrics["bytes"] == {
        name: figures["bytes"] for name, figures in again["variants"].items()
    }


def test_the_loss_of_each_topic_adds_up_to_the_whole(
    report: dict, inputs: dict[str, Path], build: Build, tmp_path: Path
) -> None:
    assert report["by_topic"] == {}
    dataset, output = fresh(tmp_path / "dataset"), fresh(tmp_path / "out")
    records = list(read_records(build.dataset / "test.jsonl"))
    for record, topic in zip(
        records, ("drinks", "drinks", "labels", "labels", "labels"), strict=True
    ):
        record["topic"] = topic
    (dataset / "test.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), "utf-8"
    )

    metrics = run(RECIPE, {**inputs, "dataset": dataset}, output)

    found = metrics["by_topic"]
    assert set(found) == {"drinks", "labels"}
    assert sum(tokens for _, tokens in found.values()) == report["tokens"]
    whole = sum(loss * tokens for loss, tokens in found.values()) / report["tokens"]
    assert whole == pytest.approx(report["variants"]["F16"]["loss"], rel=1e-5)
    base = (
        sum(metrics["base_by_topic"][topic] * tokens for topic, (_, tokens) in found.items())
        / report["tokens"]
    )
    assert base == pytest.approx(report["base"]["loss"], rel=1e-5)
    assert json.loads((output / "evaluation.json").read_text())["by_topic"] == found


def test_texts_are_cut_to_the_context_and_records_to_their_number(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run({**RECIPE, "context": 60, "max_records": 3}, inputs, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["records"] + report["skipped"] == 3
    assert report["truncated"] >= 1


def test_without_an_answer_in_the_context_there_is_nothing_to_measure(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        DataError,
        match=r"none of 5 held-out records has an answer within 4 tokens.*data\.max_tokens",
    ):
        run({**RECIPE, "context": 4}, inputs, tmp_path)


def test_a_missing_variant_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nutrition-Q2_K.gguf: no such file for Q2_K"):
        run({**RECIPE, "quants": ["Q2_K"]}, inputs, tmp_path)


def test_a_large_vocabulary_is_read_in_pieces(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(RECIPE, inputs, fresh(tmp_path / "whole"))
    monkeypatch.setattr("meetara_build.llama_cpp.model._LOGITS_BUFFER", 4 * 700 * 16)
    run(RECIPE, inputs, fresh(tmp_path / "pieces"))
    whole, pieces = (
        json.loads((tmp_path / name / "evaluation.json").read_text())
        for name in ("whole", "pieces")
    )
    assert pieces["tokens"] == whole["tokens"]
    assert pieces["base"]["loss"] == pytest.approx(whole["base"]["loss"], rel=1e-4)
    for name in ("F16", "Q8_0", "Q4_K_M"):
        one, other = (report["variants"][name] for report in (whole, pieces))
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_divergence_is_that_of_the_definition() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=(2, 4, 30)).astype(np.float32)
    p, q = (
        np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True)
        for x in (theirs, ours)
    )
    reference = log_softmax(theirs)
    found = divergence(reference, np.exp(reference), log_softmax(ours))
    assert found == pytest.approx((p * np.log(p / q)).sum(1), rel=1e-5)


def test_types_are_compared_on_so_many_tokens_and_lost_on_all(
    report: dict, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run({**RECIPE, "kl_tokens": 64}, inputs, tmp_path)
    fewer = json.loads((tmp_path / "evaluation.json").read_text())
    assert (fewer["kl_tokens"], report["kl_tokens"]) == (64, report["tokens"])
    for name, figures in fewer["variants"].items():
        assert figures["loss"] == report["variants"][name]["loss"]
    kl = fewer["variants"]["Q4_K_M"]["kl_mean"]
    assert kl == pytest.approx(report["variants"]["Q4_K_M"]["kl_mean"], rel=0.3)
    assert kl != report["variants"]["Q4_K_M"]["kl_mean"]


@pytest.mark.parametrize(
    ("tokens", "wanted", "count"), [(1000, 512, 512), (7, 512, 7), (9, None, 9)]
)
def test_the_compared_tokens_are_spread_over_all(
    tokens: int, wanted: int | None, count: int
) -> None:
    chosen = choose(tokens, wanted)
    assert chosen.sum() == count
    half = chosen[: tokens // 2].sum()
    assert abs(2 * half - count) <= 2


def test_figures_of_a_base_on_other_records_are_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    other, output = fresh(tmp_path / "baseline"), fresh(tmp_path / "out")
    fewer = BaselineRecipe.model_validate({**BASE, "max_records": 3})
    baseline.run(fewer, inputs, other)
    with pytest.raises(
        ArtifactError, match=r"baseline.json: the base was measured on other record"
    ):
        run(RECIPE, {**inputs, "baseline": other}, output)
    (other / "baseline.json").unlink()
    with pytest.raises(ArtifactError, match=r"baseline.json: no such file"):
        run(RECIPE, {**inputs, "baseline": other}, output)


def test_a_sum_of_losses_is_that_of_the_log_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32) * 8
    targets = np.array([0, 3, 39, 3, 7])
    wanted = -log_softmax(logits)[np.arange(5), targets].sum()
    assert sum_losses(logits, targets) == pytest.approx(wanted, rel=1e-5)


# An adapter alone, on its base's files


@pytest.fixture(scope="module")
def on_base(
    build: Build, inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("on_base")
    lora, quantized = fresh(root / "lora"), fresh(root / "quantized")
    gguf.run(recipe(files="lora"), build.inputs(base_gguf=inputs["base_gguf"]), lora)
    asked = QuantizeRecipe(
        base="tiny", quants=["Q8_0", "Q4_K_M"], imatrix=False, tensor_types={}, threads=1
    )
    quantize.run(asked, {"base_gguf": inputs["base_gguf"]}, quantized)
    return {**inputs, "lora": lora, "quantized": quantized}


def test_an_adapter_on_its_base_is_worth_what_the_merged_model_is(
    on_base: dict[str, Path], report: dict, tmp_path: Path
) -> None:
    run({**RECIPE, "on_base": True}, on_base, tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["base"] == report["base"]
    variants, merged = found["variants"], report["variants"]
    assert variants["F16"]["loss"] == pytest.approx(merged["F16"]["loss"], rel=2e-3)
    assert 0 < variants["Q8_0"]["kl_mean"] < variants["Q4_K_M"]["kl_mean"]
    adapter = (on_base["lora"] / "nutrition-lora.gguf").stat().st_size
    base = (on_base["quantized"] / "tiny-Q4_K_M.gguf").stat().st_size
    assert variants["Q4_K_M"]["bytes"] == base + adapter


def test_a_missing_adapter_and_a_missing_file_of_the_base_are_named(
    on_base: dict[str, Path], tmp_path: Path
) -> None:
    asked = {**RECIPE, "on_base": True}
    with pytest.raises(ArtifactError, match=r"nutrition-lora\.gguf: no such file .*gguf stage"):
        run(asked, {**on_base, "lora": tmp_path}, tmp_path)
    said = r"quantized/tiny-Q2_K\.gguf: no such file for Q2_K\. Build the quantize stage again"
    with pytest.raises(ArtifactError, match=said):
        run({**asked, "quants": ["Q2_K"]}, on_base, tmp_path)


# Answers

ASKING = {**RECIPE, "answers": {"prompts": 3, "tokens": 12, "choice_tokens": 6}}


def read_answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().split("\n") if line]


@pytest.fixture(scope="module")
def asked(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that asked three of the five held-out prompts."""
    output = tmp_path_factory.mktemp("asked")
    run(ASKING, inputs, output)
    return output


def test_base_and_every_variant_answer_the_same_prompts(asked: Path, build: Build) -> None:
    lines = read_answers(asked)
    records = list(read_records(build.dataset / "test.jsonl"))
    assert [line["id"] for line in lines] == [records[at]["id"] for at in (0, 1, 3)]
    for line, at in zip(lines, (0, 1, 3), strict=True):
        question, answer = (turn["content"] for turn in records[at]["messages"])
        assert (line["prompt"], line["reference"]) == (question, answer)
        assert list(line["answers"]) == ["base", "F16", "Q8_0", "Q4_K_M"]
        for said in line["answers"].values():
            assert set(said) == {"text", "ended", "tokens", "nats"}
            assert said["tokens"] <= 12
            assert len(said["nats"]) == 4


def test_the_figures_say_how_many_were_asked_and_how_often_the_right_answer_was_found(
    asked: Path,
) -> None:
    report = json.loads((asked / "evaluation.json").read_text())
    assert report["prompts"] == {"asked": 3, "passed_over": 0}
    assert list(report["choices"]) == ["base", "F16", "Q8_0", "Q4_K_M"]
    for name, figures in report["choices"].items():
        nats = [line["answers"][name]["nats"] for line in read_answers(asked)]
        right = sum(own < min(others) for own, *others in nats)
        assert figures["choices"] == 3
        assert figures["accuracy"] == pytest.approx(right / 3, abs=1e-4)
        assert 0 <= figures["low"] <= figures["accuracy"] <= figures["high"] <= 1


def test_to_ask_changes_no_other_figure(asked: Path, report: dict[str, Any]) -> None:
    found = json.loads((asked / "evaluation.json").read_text())
    assert {key: found[key] for key in ("base", "variants", "by_topic", "tokens")} == {
        key: report[key] for key in ("base", "variants", "by_topic", "tokens")
    }


def test_the_same_inputs_give_the_same_answers_byte_for_byte(
    asked: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(ASKING, inputs, tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == (asked / "answers.jsonl").read_bytes()


def test_where_nothing_is_asked_there_is_no_answer(inputs: dict[str, Path], tmp_path: Path) -> None:
    answers = {"prompts": 0, "tokens": 12, "choice_tokens": 6}
    metrics = run({**RECIPE, "answers": answers}, inputs, tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == b""
    assert metrics["choices"] == dict.fromkeys(("base", "F16", "Q8_0", "Q4_K_M"))


def test_more_than_there_are_are_all(inputs: dict[str, Path], tmp_path: Path) -> None:
    answers = {"prompts": 99, "tokens": 3, "choice_tokens": 3}
    run({**RECIPE, "quants": ["F16"], "answers": answers}, inputs, tmp_path)
    assert len(read_answers(tmp_path)) == 5


def test_a_base_without_room_for_an_answer_is_evaluated_and_not_asked(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    answers = {"prompts": None, "tokens": 512, "choice_tokens": 6}
    run({**RECIPE, "quants": ["F16"], "answers": answers}, inputs, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["prompts"] == {"asked": 0, "passed_over": 5}
    assert report["variants"]["F16"]["loss"] > 0
    assert read_answers(tmp_path) == []


@pytest.mark.parametrize(
    ("fewer", "said"), [(2, "was asked other questions than these"), (None, "no such file")]
)
def test_a_base_s_answers_to_other_questions_or_none_are_refused_by_name(
    inputs: dict[str, Path], tmp_path: Path, fewer: int | None, said: str
) -> None:
    other, output = fresh(tmp_path / "baseline"), fresh(tmp_path / "out")
    answers = {**ASKING["answers"], "prompts": fewer}  # type: ignore[dict-item]
    baseline.run(BaselineRecipe.model_validate({**BASE, "answers": answers}), inputs, other)
    if fewer is None:
        (other / "answers.jsonl").unlink()
    with pytest.raises(ArtifactError, match=rf"^baseline/answers\.jsonl: .*{said}.*baseline stage"):
        run(ASKING, {**inputs, "baseline": other}, output)


def test_an_adapter_on_its_base_answers_as_the_merged_model_does(
    asked: Path, on_base: dict[str, Path], tmp_path: Path
) -> None:
    run({**ASKING, "on_base": True, "quants": ["F16"]}, on_base, tmp_path)
    for merged, found in zip(read_answers(asked), read_answers(tmp_path), strict=True):
        one, other = merged["answers"]["F16"]["nats"], found["answers"]["F16"]["nats"]
        assert one == pytest.approx(other, abs=0.05)
