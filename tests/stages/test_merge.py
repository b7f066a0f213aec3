"""The merge stage: one model that computes what base and adapter computed, or a refusal."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraModel, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from meetara_build.errors import NoEffectError, ProofError
from meetara_build.llama_cpp.layout import list_differences, read_layout
from meetara_build.stages import gguf, merge
from meetara_build.stages.adapter import save_adapter
from meetara_build.stages.gguf.convert import OWN_KEYS, Labels, convert
from meetara_build.stages.gguf.loading import load_tokenizer
from meetara_build.stages.gguf.placing import Placing
from meetara_build.stages.gguf.vocabulary import Vocabulary
from meetara_build.stages.recipes.merge import MergeRecipe
from meetara_build.stages.types import Metrics
from meetara_build.training.kernels.lora import attach
from tests.gguf_builds import recipe as gguf_recipe
from tests.gguf_builds import train_nothing
from tests.small_models import make_model, train_tokenizer
from tests.stages.test_adapter import SMALL, write_dataset

RECIPE: dict[str, Any] = {
    "domain": "kitchen",
    "base": "small",
    "licence": "apache-2.0",
    "recipe": "0123",
    "threads": 1,
    "bound": 1e-3,
    "logits_bound": 0.02,
}
FOLDER = {**RECIPE, "folder": True}
FILE = "kitchen-F16.gguf"
LORA = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}


def run(recipe: Mapping[str, Any], inputs: Mapping[str, Path], output: Path) -> Metrics:
    """The stage, of a recipe that is written as JSON, on a base with its own file."""
    own = inputs["base"].parent / "base_gguf"
    if not own.exists():
        own.mkdir()
        gguf.run(gguf_recipe(name="small", base="small"), {"base": inputs["base"]}, own)
    asked = MergeRecipe.model_validate(recipe)
    return merge.run(asked, {**inputs, "base_gguf": own}, output)


def weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a GGUF file as they are stored."""
    return {
        name: np.fromfile(path, np.uint8, place.size, offset=place.start)
        for name, place in read_layout(path).tensors.items()
    }


def write_adapter(base: Path, folder: Path, size: float = 0.05, **changes: Any) -> None:
    """An adapter as training might leave it: B, and DoRA's magnitudes, away from where they
    start."""
    model = attach(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LORA | changes, seed=1
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
            elif "magnitude" in name:
                weight.mul_(1.1)
    folder.mkdir()
    save_adapter(model, base.name, folder)


def prepare(
    folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any
) -> dict[str, Path]:
    base = folder / "base"
    train_tokenizer(base, vocabulary=400)
    model = make_model(base, kind, **SMALL, **changes)
    if dtype != torch.float32:
        model.to(dtype).save_pretrained(base)
    write_dataset(folder / "dataset")
    return {"base": base, "dataset": folder / "dataset", "adapter": folder / "adapter"}


def fresh(folder: Path, name: str = "out") -> Path:
    (folder / name).mkdir()
    return folder / name


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=torch.arange(20)[None]).logits
    return out


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "gemma2", "mistral"])
def test_merged_logits_are_those_of_base_and_adapter(kind: str, tmp_path: Path) -> None:
    inputs = prepare(
        tmp_path,
        kind,
        **({"head_dim": 16, "query_pre_attn_scalar": 16} if kind == "gemma2" else {}),
    )
    write_adapter(inputs["base"], inputs["adapter"])
    output = fresh(tmp_path)
    metrics = run(FOLDER, inputs, output)
    base = AutoModelForCausalLM.from_pretrained(inputs["base"])
    expected = logits(PeftModel.from_pretrained(base, str(inputs["adapter"])))
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(output)), expected, rtol=1e-3, atol=1e-3
    )
    assert metrics["merge_difference"] <= 1e-3 < metrics["change_from_base"]


@pytest.mark.parametrize(
    "changes",
    [{"dora": True}, {"rslora": True}, {"targets": ["q_proj", "down_proj"]}],
    ids=["dora", "rslora", "some"],
)
def test_every_kind_of_adapter_is_merged(changes: dict[str, Any], tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"], **changes)
    assert run(RECIPE, inputs, fresh(tmp_path))["merge_difference"] <= 1e-4


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, tie_word_embeddings=True)
    write_adapter(inputs["base"], inputs["adapter"])
    output = fresh(tmp_path)
    run(FOLDER, inputs, output)
    names = load_file(output / "model.safetensors").keys()
    assert names == load_file(inputs["base"] / "model.safetensors").keys()
    assert "lm_head.weight" not in names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_an_adapter_changes_is_not_rounded_to_the_bases_type(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    inputs = prepare(tmp_path, dtype=dtype)
    write_adapter(inputs["base"], inputs["adapter"], size=1e-4)
    output = fresh(tmp_path)
    metrics = run(FOLDER, inputs, output)
    merged, base = (load_file(folder / "model.safetensors") for folder in (output, inputs["base"]))
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    changed = [name for name in merged if name.endswith("proj.weight")]
    assert changed
    for name in changed:
        difference = merged[name] - base[name].float()
        assert difference.count_nonzero() > 0.9 * difference.numel(), name
        assert (difference.to(dtype).float() == difference).sum() < difference.numel(), (
            "more than the type can hold"
        )
    assert metrics["merge_difference"] <= 1e-4
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.float32


def test_the_bases_other_files_are_copied_as_they_are(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    (inputs["base"] / "manifest.json").write_text("{}")
    write_adapter(inputs["base"], inputs["adapter"])
    output = fresh(tmp_path)
    run(FOLDER, inputs, output)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (output / name).read_bytes() == (inputs["base"] / name).read_bytes()
    one, other = (
        json.loads((folder / "config.json").read_bytes()) for folder in (output, inputs["base"])
    )
    assert one == {**other, "dtype": "float32"}
    assert not (output / "manifest.json").exists()
    assert [path.name for path in output.glob("*.safetensors")] == ["model.safetensors"]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    one, two = fresh(tmp_path, "one"), fresh(tmp_path, "two")
    assert run(FOLDER, inputs, one) == run(FOLDER, inputs, two)
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)


def test_an_adapter_without_effect_is_refused(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"], size=0.0)
    with pytest.raises(NoEffectError, match="kitchen: the merged model's logits equal the base's"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_a_difference_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    with pytest.raises(
        ProofError, match=r"kitchen: merged logits differ.*allowed are 1e-12.*raise merge.bound"
    ):
        run(RECIPE | {"bound": 1e-12}, inputs, fresh(tmp_path))


def test_a_wrong_merge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that forgets one layer must not pass."""
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    merged = LoraModel.merge_and_unload

    def forgetful(self: Any, **options: Any) -> Any:
        original = self.model.model.layers[0].mlp.down_proj.base_layer.weight.clone()
        model = merged(self, **options)
        model.model.layers[0].mlp.down_proj.weight.data.copy_(original)
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", forgetful)
    with pytest.raises(ProofError, match="logits differ"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    path = inputs["adapter"] / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[sorted(tensors)[0]][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ProofError, match="nan"):
        run(RECIPE, inputs, fresh(tmp_path))


def test_a_dataset_without_records_is_refused(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    for name in ("train", "validation"):
        (inputs["dataset"] / f"{name}.jsonl").write_text("")
    with pytest.raises(ProofError, match="no record to compare"):
        run(RECIPE, inputs, fresh(tmp_path))


# The file


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "gpt2", "mistral"])
def test_the_file_is_byte_for_byte_what_a_whole_conversion_gives(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Of the merged model in float32, so that nothing is rounded on the way to F16."""
    inputs = prepare(tmp_path, kind, dtype)
    write_adapter(inputs["base"], inputs["adapter"])
    output = fresh(tmp_path)
    metrics = run(FOLDER, inputs, output)
    assert metrics["weights"] > 0 and "converted_whole" not in metrics
    own = read_layout(tmp_path / "base_gguf" / "small-F16.gguf")
    vocabulary = Vocabulary.of(inputs["base"], load_tokenizer(inputs["base"])).cut_by(
        own.text("tokenizer.ggml.pre") or None
    )
    labels = Labels.of_domain("kitchen", "small", "apache-2.0", "0123")
    convert(output, tmp_path / "whole.gguf", labels, vocabulary)
    assert (tmp_path / "whole.gguf").read_bytes() == (output / FILE).read_bytes()


def test_what_the_adapter_leaves_alone_is_the_base_s_bit_for_bit(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"], targets=["q_proj", "down_proj"])
    output = fresh(tmp_path)
    assert run(RECIPE, inputs, output)["weights"] == 4
    assert [path.name for path in output.iterdir()] == [FILE]
    base = tmp_path / "base_gguf" / "small-F16.gguf"
    ours, theirs = weights(output / FILE), weights(base)
    changed = {name for name in theirs if (ours[name] != theirs[name]).any()}
    assert changed == {
        f"blk.{layer}.{kind}.weight" for layer in (0, 1) for kind in ("attn_q", "ffn_down")
    }
    layouts = read_layout(output / FILE), read_layout(base)
    assert list_differences(*layouts, OWN_KEYS) == []
    assert layouts[0].text("general.name") == layouts[0].text("meetara.domain") == "kitchen"
    assert layouts[0].text("meetara.recipe") == "0123"


def test_a_weight_in_the_wrong_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged weights are right, the file is not: llama.cpp shows it."""
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"], size=0.5)
    placed = Placing.list_weights

    def forgetful(self: Placing, merged: Mapping[str, torch.Tensor]) -> Any:
        return (one for one in placed(self, merged) if one[0] != "blk.0.ffn_up.weight")

    monkeypatch.setattr(Placing, "list_weights", forgetful)
    with pytest.raises(
        ProofError, match=r"kitchen-F16.gguf: logits differ from those of base \+ adapter"
    ):
        run(RECIPE, inputs, fresh(tmp_path))


def test_the_base_s_own_file_is_not_written_into(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    run(RECIPE, inputs, fresh(tmp_path, "one"))
    own = tmp_path / "base_gguf" / "small-F16.gguf"
    own.chmod(0o444)
    before = own.read_bytes()
    run(RECIPE, inputs, fresh(tmp_path, "two"))
    assert own.read_bytes() == before


def test_float_types_that_are_asked_for_are_written_unrounded(tmp_path: Path) -> None:
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    output = fresh(tmp_path)
    run({**RECIPE, "floats": ["BF16", "F32"]}, inputs, output)
    names = {path.name for path in output.iterdir()}
    assert names == {FILE, "kitchen-BF16.gguf", "kitchen-F32.gguf"}
    half, whole = weights(output / FILE), weights(output / "kitchen-F32.gguf")
    name = "blk.0.ffn_up.weight"
    assert (whole[name].view(np.float32).astype(np.float16) == half[name].view(np.float16)).all()
    assert (whole[name].view(np.float32) != half[name].view(np.float16)).any()


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"modules_to_save": ["lm_head"]}, "lm_head is trained whole"),
        ({"bias": "lora_only"}, "the adapter changes biases too"),
    ],
    ids=["whole modules", "biases"],
)
def test_what_cannot_be_placed_is_converted_whole_and_the_figures_say_so(
    lora: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    build = train_nothing(tmp_path / "build", lora=lora, tie_word_embeddings=False)
    output = fresh(tmp_path)
    metrics = build.merge(build.inputs(merged=output), output)
    assert metrics["converted_whole"] == reason
    assert [path.name for path in output.iterdir()] == ["nutrition-F16.gguf"]
    assert metrics["logits_distance"] < 0.005


def test_weights_that_transformers_holds_otherwise_are_converted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a model whose weights are turned or joined while they are loaded."""
    inputs = prepare(tmp_path)
    write_adapter(inputs["base"], inputs["adapter"])
    placed = fresh(tmp_path, "placed")
    run(RECIPE, inputs, placed)
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    whole = fresh(tmp_path, "whole")
    assert re.fullmatch(
        r"model\.layers\.0\..+ is not held as the base's files have it",
        run(RECIPE, inputs, whole)["converted_whole"],
    )
    assert (placed / FILE).read_bytes() == (whole / FILE).read_bytes()
