"""A plan says what a base was taken back from, and what that is quantized to: before it is built,
and after."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from projects import DOMAINS, override, small_project, write_yaml

from meetara_build.graph import load
from meetara_build.plan.base_origins import BaseOrigin, base_origins
from meetara_build.store.manifest import Manifest

BASE: dict[str, Any] = {
    "description": "x",
    "licence": "mit",
    "chat_template": "chatml",
    "parameters": 1,
}


def weights(path: Path, kind: gguf.GGMLQuantizationType) -> Path:
    path.parent.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    data = gguf.quants.quantize(np.ones((64, 256), np.float32), kind)
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = small_project(tmp_path / "project")
    weights(made / "models" / "mine.gguf", gguf.GGMLQuantizationType.Q8_0)
    write_yaml(made / "conf" / "base" / "mine.yaml", {**BASE, "gguf": "models/mine.gguf"})
    override(made, "nutrition", {"base": "mine"})
    return made


def test_a_file_says_what_it_is_quantized_to_before_anything_is_built(project: Path) -> None:
    (origin,) = base_origins(load(project))
    assert origin == BaseOrigin("mine", "mine.gguf", "Q8_0")
    assert origin.text() == "Base mine: taken back from mine.gguf, which is quantized to Q8_0."


def test_a_file_of_plain_floats_is_not_said_to_be_quantized(project: Path) -> None:
    weights(project / "models" / "mine.gguf", gguf.GGMLQuantizationType.F16)
    (origin,) = base_origins(load(project))
    assert origin.quantized is None
    assert origin.text() == "Base mine: taken back from mine.gguf."


def test_domains_on_other_bases_have_no_such_line(project: Path) -> None:
    others = [name for name in DOMAINS if name != "nutrition"]
    assert base_origins(load(project), others) == []
    assert len(base_origins(load(project), ["nutrition"])) == 1


def test_what_the_base_stage_found_is_known_where_the_file_is_gone(project: Path) -> None:
    content = {**BASE, "gguf": {"hub_id": "a/b", "revision": "0" * 40, "file": "deep/x.gguf"}}
    write_yaml(project / "conf" / "base" / "mine.yaml", content)
    graph = load(project)
    assert base_origins(graph) == [BaseOrigin("mine", "x.gguf", None)]
    step = graph.step("base", "base/mine")
    path = graph.root / step.place.manifest
    path.parent.mkdir(parents=True)
    path.write_text(
        Manifest(
            "base", "base/mine", step.fingerprint, step.made_from, {}, {}, {"quantized": "Q4_1"}
        ).text()
    )
    assert base_origins(graph) == [BaseOrigin("mine", "x.gguf", "Q4_1")]


def test_a_damaged_file_is_left_to_the_base_stage(project: Path) -> None:
    (project / "models" / "mine.gguf").write_bytes(b"GGUF")
    assert base_origins(load(project)) == [BaseOrigin("mine", "mine.gguf", None)]
