"""A base taken back from a GGUF file is the model in that file, as llama.cpp reads it, or it is
refused in a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf as gguf_library
import pytest
import torch
from gguf_builds import fresh, recipe, train_nothing
from safetensors.torch import load_file, save_file
from small_models import make_model, train_sentencepiece_like, train_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from meetara_build.errors import ConfigError, ProofError
from meetara_build.setup.originals import ORIGINAL, Original
from meetara_build.stages import base, gguf
from meetara_build.stages.base import from_gguf
from meetara_build.stages.recipes.base import BaseRecipe

CUTS = ["gpt2", "smollm", "llama3", "qwen2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of one random model by their type, its LoRA file as ``lora``, and its folder as
    ``model``."""
    root = tmp_path_factory.mktemp("files")
    build = train_nothing(root / "build", cut="smollm", intermediate_size=512)
    folder = fresh(root / "gguf")
    gguf.run(
        recipe(quants=["F16", "Q8_0", "Q4_K_M", "BF16", "F32"], files="both"),
        build.inputs(["BF16", "F32"]),
        folder,
    )
    return {path.stem.removeprefix("nutrition-"): path for path in folder.glob("*.gguf")} | {
        "model": build.merged
    }


def take(path: Path, folder: Path, name: str = "small") -> dict[str, Any]:
    """What the base stage says of a base taken back from a file, which it writes to ``folder``."""
    taken = BaseRecipe(name=name, gguf=Original(path.name))
    return base.run(taken, {ORIGINAL: path}, fresh(folder))


def prove(path: Path, folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """The proof of the base's own gguf stage."""
    made = recipe(name="small", base="small", original={"file": path.name}, **changes)
    gguf.run(made, {"base": folder, ORIGINAL: path}, fresh(output))
    return dict(json.loads((output / "proof.json").read_text()))


@pytest.mark.parametrize(
    ("kind", "dtype", "quantized"),
    [
        ("F32", torch.float32, None),
        ("F16", torch.float16, None),
        ("BF16", torch.bfloat16, None),
        ("Q8_0", torch.float16, "Q8_0"),
        ("Q4_K_M", torch.float16, "Q4_K"),
    ],
)
def test_a_base_taken_back_is_the_model_in_the_file(
    kind: str, dtype: torch.dtype, quantized: str | None, files: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    metrics = take(files[kind], folder)
    assert metrics["quantized"] == quantized
    weights = load_file(folder / "model.safetensors").values()
    assert {tensor.dtype for tensor in weights if tensor.dim() > 1} == {dtype}
    assert {tensor.dtype for tensor in weights if tensor.dim() == 1} == {torch.float32}, (
        "as a GGUF file holds them"
    )
    assert json.loads((folder / "origin.json").read_text()) == {
        "file": files[kind].name,
        "quantized": quantized,
    }
    proof = prove(files[kind], folder, tmp_path / "gguf")["original"]
    assert proof["worst"] < (5e-3 if quantized else 1e-4)
    assert proof["conversations"] > 0


def test_a_base_taken_back_has_no_trace_of_quantization_left(
    files: dict[str, Path], tmp_path: Path
) -> None:
    take(files["Q8_0"], tmp_path / "base")
    assert "quantization_config" not in json.loads((tmp_path / "base" / "config.json").read_text())
    again = take(files["Q8_0"], tmp_path / "again")
    assert again == take(files["Q8_0"], tmp_path / "base")
    for path in (tmp_path / "base").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), (
            "the same bytes each time"
        )


@pytest.mark.parametrize("cut", CUTS)
def test_its_tokenizer_cuts_as_the_original_does(cut: str, tmp_path: Path) -> None:
    build = train_nothing(tmp_path / "build", cut=cut, lora={"target_modules": ["q_proj"]})
    gguf.run(recipe(name="small"), {"base": build.base}, fresh(tmp_path / "gguf"))
    path = tmp_path / "gguf" / "small-F16.gguf"
    take(path, tmp_path / "base")
    one, other = (
        AutoTokenizer.from_pretrained(folder) for folder in (build.base, tmp_path / "base")
    )
    alone = from_gguf.read_tokenizer("small", path)
    for text in ("In 2024, 12345 people", "Don't panic", "नमस्ते १२३", "x = 10\n\n\ty += 3.14"):
        assert one(text)["input_ids"] == other(text)["input_ids"] == alone(text)["input_ids"]
    assert prove(path, tmp_path / "base", tmp_path / "proof")["original"]["worst"] < 5e-3


def test_a_file_with_a_sentencepiece_vocabulary_cuts_as_llama_cpp_does(tmp_path: Path) -> None:
    train_sentencepiece_like(fresh(tmp_path / "model"))
    make_model(tmp_path / "model")
    gguf.run(recipe(name="small"), {"base": tmp_path / "model"}, fresh(tmp_path / "gguf"))
    path = tmp_path / "gguf" / "small-F16.gguf"
    take(path, tmp_path / "base")
    one, other = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("model", "base"))
    for text in (" ", "  two spaces before", "a b", "नमस्ते"):
        ids = one(text, add_special_tokens=False)["input_ids"]
        assert ids == other(text, add_special_tokens=False)["input_ids"]
        assert ids == other(text)["input_ids"], "no conversation of it begins with <s>"
    assert prove(path, tmp_path / "base", tmp_path / "proof")["original"]["worst"] < 1e-4


def test_weights_that_are_not_those_of_the_file_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    take(files["Q8_0"], folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name] = weights[name] * 1.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ProofError, match=r"nutrition-Q8_0\.gguf: logits differ from those of the base"
    ):
        prove(files["Q8_0"], folder, tmp_path / "gguf")


def test_a_tokenizer_that_cuts_otherwise_than_the_file_is_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    take(files["F16"], folder)
    train_tokenizer(folder, "gpt2", vocabulary=500)
    with pytest.raises(
        ProofError, match=r"llama\.cpp cuts text otherwise than the base's tokenizer"
    ):
        prove(files["F16"], folder, tmp_path / "gguf")


def test_what_lies_beside_the_file_is_no_part_of_it(files: dict[str, Path], tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    shutil.copyfile(files["F16"], beside / "x.gguf")
    (beside / "config.json").write_text("{broken")
    (beside / "chat_template.jinja").write_text("another")
    take(beside / "x.gguf", tmp_path / "base")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.model_type == "llama"
    assert "another" not in (tmp_path / "base" / "chat_template.jinja").read_text()


# What cannot be taken back


def written(path: Path, architecture: str, **keys: str) -> Path:
    """A GGUF file with one tensor and these keys; ``kind`` is its ``general.type``, ``template``
    its chat template."""
    writer = gguf_library.GGUFWriter(path, architecture)
    if "kind" in keys:
        writer.add_string(from_gguf.KIND, keys["kind"])
    if "template" in keys:
        writer.add_chat_template(keys["template"])
    writer.add_tensor("token_embd.weight", torch.zeros(32, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refused(path: Path, folder: Path) -> str:
    with pytest.raises(ConfigError) as fault:
        take(path, folder)
    assert "\n" not in str(fault.value)
    return str(fault.value)


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.999])
def test_a_file_that_is_cut_short_is_refused(
    share: float, files: dict[str, Path], tmp_path: Path
) -> None:
    content = files["Q8_0"].read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: int(len(content) * share)])
    assert "cut short" in (said := refused(tmp_path / "cut.gguf", tmp_path / "base"))
    assert said.endswith("fetch or copy it again")


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not weights")
    assert "not a GGUF file" in refused(tmp_path / "text.gguf", tmp_path / "base")


def test_a_lora_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    assert "is a LoRA adapter, not a model" in refused(files["lora"], tmp_path / "base")


@pytest.mark.parametrize(
    ("architecture", "kind"), [("clip", "model"), ("clip", "mmproj"), ("qwen2vl", "mmproj")]
)
def test_a_multimodal_projector_is_refused(architecture: str, kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mmproj.gguf", architecture, kind=kind)
    assert "part of a multimodal model; name the file of its language model" in refused(
        path, tmp_path / "base"
    )


def test_one_part_of_several_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    part = shutil.copyfile(files["F16"], tmp_path / "big-00001-of-00003.gguf")
    assert "is one part of several; put them together" in refused(part, tmp_path / "base")


def test_a_file_of_a_hub_that_cannot_be_reached_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    origin = {"hub_id": "nobody/no-such-model", "revision": "0" * 40, "file": "x.gguf"}
    with pytest.raises(
        ConfigError,
        match=r"base far: cannot fetch nobody/no-such-model .*check the name, the commit",
    ):
        base.run(
            BaseRecipe.model_validate({"name": "far", "gguf": origin}), {}, fresh(tmp_path / "base")
        )


def test_a_file_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    assert "has no chat template" in refused(
        written(tmp_path / "x.gguf", "llama", kind="model"), tmp_path / "base"
    )


def test_an_architecture_that_transformers_does_not_know_is_named(tmp_path: Path) -> None:
    said = refused(
        written(tmp_path / "x.gguf", "no-such-model", kind="model", template="{{ x }}"),
        tmp_path / "base",
    )
    assert "transformers cannot take back a GGUF file of the architecture 'no-such-model'" in said
