"""How much a step has to do: more for more records, epochs or files, as it was recorded, and
something where nothing is known."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from projects import edit, override, small_project

from meetara_build.graph import Graph, Step, load
from meetara_build.plan.workload import UNKNOWN_BYTES, output_size, workload
from meetara_build.store import journal
from meetara_build.store.manifest import Manifest, read_manifest

STAGES = (
    "corpus",
    "base",
    "dataset",
    "adapter",
    "baseline",
    "merge",
    "gguf",
    "evaluate",
    "package",
)


def inputs(**files: dict[str, int]) -> Any:
    """Manifests of inputs by name, with files of these sizes:
    ``inputs(corpus={"corpus.jsonl": 100})``."""

    def manifest(name: str) -> Manifest | None:
        if name not in files:
            return None
        entries = {file: {"sha256": "", "size": size} for file, size in files[name].items()}
        return Manifest("", "", "", {}, {}, entries, {})

    return manifest


NONE = inputs()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which nothing is built."""
    return small_project(tmp_path / "project", ["nutrition"])


def step(project: Path, stage: str) -> Step:
    return load(project).step(stage, "base/mini" if stage in ("corpus", "base") else "nutrition")


@pytest.mark.parametrize("stage", STAGES)
def test_there_is_always_something_to_do(project: Path, stage: str) -> None:
    assert workload(step(project, stage), NONE) > 0
    assert output_size(step(project, stage), NONE) > 0


def test_reading_takes_as_much_as_there_is_to_read(project: Path) -> None:
    source = project / "conf" / "domain" / "nutrition.jsonl"
    for stage in ("corpus", "dataset"):
        assert workload(step(project, stage), NONE) == source.stat().st_size
    found = step(project, "dataset")
    gone = found._replace(sources={"source_0": str(source.with_name("gone.jsonl"))})
    assert workload(gone, NONE) == workload(found._replace(sources={}), NONE) == UNKNOWN_BYTES


def test_a_folder_is_as_much_as_all_files_in_it(project: Path, tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 500)
    found = step(project, "dataset")._replace(sources={"source_0": os.fspath(tmp_path / "folder")})
    assert workload(found, NONE) == 1000


def test_training_grows_with_the_model_the_records_and_the_epochs(project: Path) -> None:
    found = step(project, "adapter")
    once = workload(found, inputs(dataset={"train.jsonl": 10_000}))
    assert workload(found, inputs(dataset={"train.jsonl": 30_000})) == pytest.approx(3 * once)
    assert (
        workload(
            found._replace(parameters=found.parameters * 2), inputs(dataset={"train.jsonl": 10_000})
        )
        == 2 * once
    )
    override(project, "nutrition", {"training.epochs": 6})  # of 2
    assert workload(
        step(project, "adapter"), inputs(dataset={"train.jsonl": 10_000})
    ) == pytest.approx(3 * once)


def test_no_training_is_longer_than_its_most_steps(project: Path) -> None:
    override(project, "nutrition", {"training.max_steps": 10, "training.batch_tokens": 100})
    found = step(project, "adapter")
    most = found.parameters * 10 * 100
    assert workload(found, inputs(dataset={"train.jsonl": 10**9})) == most
    assert workload(found, inputs(dataset={"train.jsonl": 100})) < most


def test_pretraining_grows_with_the_corpus_and_the_epochs(project: Path) -> None:
    less, more = (
        workload(step(project, "base"), inputs(corpus={"corpus.jsonl": size}))
        for size in (10**4, 10**6)
    )
    assert more > 50 * less
    edit(project / "conf" / "base" / "mini.yaml", "pretraining.epochs", 4)
    assert workload(step(project, "base"), inputs(corpus={"corpus.jsonl": 10**6})) == pytest.approx(
        4 * more, rel=0.01
    )


def test_conversion_and_evaluation_grow_with_the_number_of_files(project: Path) -> None:
    tested = inputs(dataset={"test.jsonl": 10_000})
    before = {stage: workload(step(project, stage), tested) for stage in ("gguf", "evaluate")}
    size = output_size(step(project, "gguf"), NONE)
    override(project, "nutrition", {"domain.quants": ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]})
    for stage, least in before.items():
        assert workload(step(project, stage), tested) > 1.3 * least
    assert output_size(step(project, "gguf"), NONE) > 1.3 * size


@pytest.mark.parametrize("stage", ["baseline", "evaluate"])
def test_evaluation_grows_with_the_text_and_with_the_answers_that_are_asked_for(
    project: Path, stage: str
) -> None:
    def reckon(prompts: int | None, size: int = 10_000) -> float:
        override(project, "nutrition", {"answers.prompts": prompts})
        return workload(step(project, stage), inputs(dataset={"test.jsonl": size}))

    assert reckon(0, 20_000) == pytest.approx(2 * reckon(0))
    assert reckon(8) - reckon(0) == pytest.approx(2 * (reckon(4) - reckon(0)))
    assert reckon(None, 20_000) == pytest.approx(2 * reckon(None))
    assert reckon(None) > reckon(4)


def test_the_f16_file_counts_once_whether_or_not_it_is_asked_for(project: Path) -> None:
    sizes = []
    for quants in (["F16", "Q8_0"], ["Q8_0"]):
        override(project, "nutrition", {"domain.quants": quants})
        sizes.append(output_size(step(project, "gguf"), NONE))
    assert sizes[0] == sizes[1]
    assert sizes[0] == pytest.approx(step(project, "gguf").parameters * (2 + 8.5 / 8))


# Held against a real build


@pytest.fixture(scope="module")
def built(built_project: Path) -> Graph:
    """The graph of a small project that was really built."""
    return load(built_project)


def manifests(graph: Graph, found: Step) -> Any:
    """The manifests of a step's inputs, as they lie there; a temporary's is gone."""

    def manifest(name: str) -> Manifest | None:
        given = found.inputs.get(name)
        path = graph.root / given.place.manifest if given else None
        return read_manifest(path) if path and path.exists() else None

    return manifest


def test_what_a_run_recorded_is_what_a_plan_would_say_now(built: Graph) -> None:
    recorded = {
        (run.stage, run.target): run.work
        for run in journal.runs(built.root)
        if run.outcome == "built"
    }
    assert set(recorded) == set(built.steps)
    for key, found in built.steps.items():
        assert workload(found, manifests(built, found)) == recorded[key], found.name


def test_sizes_are_near_those_of_the_files(built: Graph) -> None:
    ratios = {}
    for stage, target in [
        ("base", "base/mini"),
        ("gguf", "base/mini"),
        ("gguf", "nutrition"),
        ("adapter", "nutrition"),
    ]:
        found = built.step(stage, target)
        files = json.loads((built.root / found.place.manifest).read_text())["files"]
        size = sum(entry["size"] for entry in files.values())
        ratios[found.name] = output_size(found, manifests(built, found)) / size
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
