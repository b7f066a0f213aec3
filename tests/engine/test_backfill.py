"""Before Snakemake starts, the store knows what lies here, and what is made anew may be written."""

import shutil
from pathlib import Path

import pytest
from fast_stages import build
from projects import copy_built, edit

from meetara_build.engine.backfill import unseal
from meetara_build.graph import load
from meetara_build.plan import plan


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


def sealed(folder: Path) -> bool:
    """Whether none of an artifact's files may be written."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    assert files
    return not any(path.stat().st_mode & 0o222 for path in files)


def test_only_what_is_to_be_made_anew_may_be_written(project: Path) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    (project / "artifacts" / "music" / "package" / "manifest.json").unlink()
    graph = load(project)
    unseal(graph, plan(graph))
    for domain, stage, as_it_was in (
        ("nutrition", "package", False),
        ("music", "package", False),
        ("nutrition", "adapter", True),
        ("programming", "package", True),
    ):
        assert sealed(project / "artifacts" / domain / stage) == as_it_was, (domain, stage)
    build(project)
    assert sealed(project / "artifacts" / "nutrition" / "package")
    assert sealed(project / "artifacts" / "music" / "package"), (
        "restored, the store's own file is sealed again too"
    )


def test_files_of_a_type_that_is_no_longer_asked_for_go_where_the_store_was_deleted(
    project: Path,
) -> None:
    folder = project / "artifacts" / "music" / "gguf"
    assert (folder / "music-Q8_0.gguf").exists()
    shutil.rmtree(project / "artifacts" / "store")
    edit(project / "conf" / "domain" / "music.yaml", "quants", ["F16"])
    build(project)
    assert not (folder / "music-Q8_0.gguf").exists()
    assert (folder / "music-F16.gguf").exists()
