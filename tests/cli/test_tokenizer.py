"""The tokenizer of a base is found wherever it lies already."""

from pathlib import Path

import pytest
from gguf_builds import fresh, recipe, train_nothing
from projects import choose, small_project, write_yaml

from meetara_build.cli.tokenizer import find_tokenizer
from meetara_build.graph import Graph, load
from meetara_build.project import CACHE
from meetara_build.stages import gguf

TEXT = "In 2024, 12345 people don't panic"


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base's folder, and the same as a GGUF file."""
    root = tmp_path_factory.mktemp("taken")
    build = train_nothing(root / "build", cut="smollm", lora={"target_modules": ["q_proj"]})
    gguf.run(recipe(name="small"), {"base": build.base}, fresh(root / "gguf"))
    return build.base, root / "gguf" / "small-F16.gguf"


def on(folder: Path, origin: dict[str, str]) -> Graph:
    project = small_project(folder, ("storytelling",))
    about = {
        "description": "Mine",
        "licence": "mit",
        "chat_template": "chatml",
        "parameters": 100_000,
    }
    write_yaml(project / "conf" / "base" / "own.yaml", {**about, **origin})
    choose(project, base="own")
    return load(project)


def test_a_base_that_is_a_gguf_file_or_a_folder_is_measured_with_before_it_is_built(
    taken: tuple[Path, Path], tmp_path: Path
) -> None:
    graphs = [
        on(tmp_path / "folder", {"folder": str(taken[0])}),
        on(tmp_path / "file", {"gguf": str(taken[1])}),
    ]
    found = [
        find_tokenizer(graph, graph.step("base", "base/own"))(TEXT)["input_ids"] for graph in graphs
    ]
    assert found[0] == found[1]
    (kept,) = (tmp_path / "file" / CACHE / "tokenizers").iterdir()
    assert (kept / "tokenizer.json").exists()
    again = find_tokenizer(graphs[1], graphs[1].step("base", "base/own"))
    assert again.name_or_path == str(kept), "what was read out of the file is kept"
    assert again(TEXT)["input_ids"] == found[0]


def test_a_base_that_is_built_is_measured_with_and_one_that_is_not_here_is_not(
    built_project: Path, tmp_path: Path
) -> None:
    graph = load(built_project)
    assert find_tokenizer(graph, graph.step("base", "base/mini")) is not None
    graph = load(small_project(tmp_path / "project", ("storytelling",)))
    assert find_tokenizer(graph, graph.step("base", "base/mini")) is None
