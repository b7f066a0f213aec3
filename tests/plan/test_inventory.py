"""A look at the artifacts: it notices what is not as it was built, and reads nothing twice."""

import os
import shutil
from pathlib import Path

import pytest
from commands import damage
from projects import copy_built

from meetara_build.graph import Graph, Step, load
from meetara_build.plan import plan
from meetara_build.plan.inventory import Sight
from meetara_build.store import digests
from meetara_build.store.manifest import CHANGED, MISSING, digest_file


@pytest.fixture
def graph(built: Path, tmp_path: Path) -> Graph:
    """Of a copy of one's own."""
    return load(copy_built(built, tmp_path / "project"))


@pytest.fixture
def step(graph: Graph) -> Step:
    return graph.step("gguf", "nutrition")


def faults(graph: Graph, step: Step) -> dict[str, str]:
    """What a new look finds wrong; it is remembered for the next."""
    sight = Sight(graph)
    manifest = sight.manifest(step)
    assert manifest is not None
    found = sight.faults(step, manifest)
    sight.save()
    return found


def test_a_whole_artifact_has_no_fault(graph: Graph) -> None:
    kept = [step for step in graph.steps.values() if step.keep]
    assert len(kept) > 20
    assert not any(faults(graph, step) for step in kept)


def test_files_that_are_gone_or_changed_are_named(graph: Graph, step: Step) -> None:
    folder = graph.root / step.place.folder
    (folder / "proof.json").unlink()
    damage(folder / "nutrition-F16.gguf")
    assert faults(graph, step) == {"proof.json": MISSING, "nutrition-F16.gguf": CHANGED}


def test_a_change_under_the_old_time_and_size_is_noticed_after_a_look(
    graph: Graph, step: Step
) -> None:
    path = graph.root / step.place.folder / "nutrition-F16.gguf"
    before = path.stat()
    assert faults(graph, step) == {}
    damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert faults(graph, step) == {path.name: CHANGED}


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"stage": "gguf"}'])
def test_a_manifest_that_is_gone_or_damaged_is_none(
    graph: Graph, step: Step, text: str | None
) -> None:
    path = graph.root / step.place.manifest
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert Sight(graph).manifest(step) is None


def test_nothing_is_read_twice(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        digests, "digest_file", lambda path: (read.append(path.name), digest_file(path))[1]
    )
    monkeypatch.setattr(digests, "TICK_NS", 0)  # what was copied a moment ago counts as settled
    for expected in (True, False):
        read.clear()
        sight = Sight(graph)
        plan(graph, sight=sight)
        sight.save()
        assert bool(read) == expected
    damage(graph.root / "music" / "gguf" / "music-F16.gguf")
    plan(graph, sight=Sight(graph))
    assert read == ["music-F16.gguf"]


def test_what_was_seen_is_kept_beside_the_configuration_and_not_below_the_root(
    graph: Graph,
) -> None:
    shutil.rmtree(graph.project / ".meetara")
    before = set(graph.root.rglob("*"))
    sight = Sight(graph)
    plan(graph, sight=sight)
    assert not (graph.project / ".meetara").exists(), "a look alone writes nothing"
    sight.save()
    assert set(graph.root.rglob("*")) == before
    assert len(list((graph.project / ".meetara" / "states").iterdir())) == sum(
        step.keep for step in graph.steps.values()
    )


@pytest.mark.parametrize("text", [None, "{"], ids=["a manifest deleted", "a manifest cut short"])
def test_what_was_built_before_is_told_from_what_never_was(
    graph: Graph, step: Step, text: str | None
) -> None:
    path = graph.root / step.place.manifest
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert Sight(graph).was_built(step)
    shutil.rmtree(graph.root)
    assert not Sight(graph).was_built(step)


def test_a_blob_that_shares_its_bytes_with_a_changed_file_is_damaged_too(
    graph: Graph, step: Step
) -> None:
    sight = Sight(graph)
    manifest = sight.manifest(step)
    assert manifest is not None
    path = graph.root / step.place.folder / "nutrition-F16.gguf"
    blob = sight.store.blob(manifest.files[path.name]["sha256"])
    for shared in (False, True):
        path.unlink()
        shutil.copy(blob, path)
        if shared:
            blob.unlink()  # other tests' project has it too
            os.link(path, blob)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().swapcase())
        sight = Sight(graph)
        assert not sight.is_damaged(sight.store, manifest), "nothing was looked at yet"
        assert sight.faults(step, manifest) == {path.name: CHANGED}
        assert sight.is_damaged(sight.store, manifest) == shared
