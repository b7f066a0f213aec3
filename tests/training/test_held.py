"""A base that is held: every job that inherits it trains the same adapter, bit for bit, and reads
nothing of it again."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from meetara_build.errors import TrainingError
from meetara_build.graph import Graph, load
from meetara_build.stages import adapter
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.training import held
from meetara_build.training.held import hold_base, open_base
from meetara_build.training.kernels import frozen

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in a test goes with it."""
    monkeypatch.setattr(held, "_held", [])
    monkeypatch.setattr(frozen, "_held", {})


@pytest.fixture
def graph(built_project: Path) -> Graph:
    return load(built_project)


def base_of(graph: Graph) -> Path:
    return graph.root / graph.step("adapter", "nutrition").inputs["base"].place.folder


def train(graph: Graph, output: Path, **changes: object) -> bytes:
    """The weights of nutrition's adapter, trained again."""
    step = graph.step("adapter", "nutrition")
    recipe = AdapterRecipe.model_validate(step.told)
    inputs = {name: graph.root / given.place.folder for name, given in step.inputs.items()}
    output.mkdir(parents=True)
    adapter.run(recipe.model_copy(update=changes), inputs, output)
    return (output / WEIGHTS).read_bytes()


def test_a_held_base_gives_the_adapter_that_a_loaded_one_gives(
    graph: Graph, tmp_path: Path, forgotten: None
) -> None:
    loaded = train(graph, tmp_path / "loaded" / "out")
    hold_base(base_of(graph), torch.float32)
    assert train(graph, tmp_path / "held" / "out") == loaded


def test_it_serves_one_training_after_another(
    graph: Graph, tmp_path: Path, forgotten: None
) -> None:
    """In other shapes too: what one training undoes, the next one finds as it was."""
    hold_base(base_of(graph), torch.float32)
    child = os.fork()  # an adapter stays attached to the model of its own process
    if child == 0:
        try:
            train(graph, tmp_path / "first" / "out")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    second = train(graph, tmp_path / "second" / "out")
    assert second == (tmp_path / "first" / "out" / WEIGHTS).read_bytes()


def test_nothing_of_it_is_read_again(
    graph: Graph, tmp_path: Path, forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_base(base_of(graph), torch.float32)
    monkeypatch.setattr(held, "load_model", None)
    monkeypatch.setattr(held, "load_tokenizer", None)
    assert train(graph, tmp_path / "held" / "out")


def test_another_base_or_precision_or_a_need_of_its_weights_loads_its_own(
    graph: Graph, tmp_path: Path, forgotten: None
) -> None:
    base = base_of(graph)
    hold_base(base, torch.float32)
    model, _ = open_base(base, torch.float32, "cpu", whole=False)
    assert open_base(base, torch.float32, "cpu", whole=False)[0] is model
    assert open_base(base, torch.float32, "cpu", whole=True)[0] is not model
    other = tmp_path / "other"
    shutil.copytree(base, other)
    assert open_base(other, torch.float32, "cpu", whole=False)[0] is model
    (other / "manifest.json").write_text("{}")
    found, _ = open_base(other, torch.float32, "cpu", whole=False)
    assert found is not model
    assert not any(weight.isnan().any() for weight in found.parameters())


def test_a_folder_without_a_base_is_refused_and_nothing_is_held(
    tmp_path: Path, forgotten: None
) -> None:
    with pytest.raises(TrainingError, match="the base has no tokenizer"):
        hold_base(tmp_path, torch.float32)
    assert held._held == []
