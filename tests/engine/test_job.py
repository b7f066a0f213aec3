"""The part of a stage run that does the work: what it writes, and how its faults read."""

import errno
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_builds import fresh, merge_recipe, train_nothing

from meetara_build.engine import job
from meetara_build.errors import ConfigError
from meetara_build.graph import load


def request(project: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Have nutrition packaged into ``folder/out``."""
    graph = load(project)
    step = graph.step("package", "nutrition")
    output = folder / "out"
    output.mkdir()
    return {
        "name": step.name,
        "stage": step.stage,
        "recipe": step.recipe,
        "inputs": {
            name: str(graph.root / given.place.folder) for name, given in step.inputs.items()
        },
        "output": str(output),
        "threads": 1,
        "debug": False,
        "report": str(folder / "logs" / "package.traceback"),
        "gpus": 0,
        "root": str(folder),
        "about": {"domain": step.target, "stage": step.stage},
        **changes,
    }


def test_a_job_writes_its_figures_beside_its_output(built_project: Path, tmp_path: Path) -> None:
    assert job.perform(request(built_project, tmp_path)) == 0
    figures = json.loads((tmp_path / job.FIGURES).read_text())
    assert figures["pid"] == os.getpid()
    assert figures["metrics"]
    assert figures["seconds"] >= 0
    assert figures["cpu_seconds"] >= 0
    assert figures["peak_mb"] > 10
    assert (tmp_path / "out" / "Modelfile").exists()


def test_a_fault_that_a_person_can_mend_is_its_message(
    built_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(built_project, tmp_path)
    gone = {**asked["inputs"], "evaluation": asked["inputs"]["dataset"]}
    assert job.perform({**asked, "inputs": gone}) == 1
    said = capsys.readouterr().err
    assert said.startswith("nutrition/package: ")
    assert "Traceback" not in said
    assert not (tmp_path / job.FIGURES).exists()


def test_a_full_disk_is_named_with_the_file(
    built_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(built_project, tmp_path)
    (tmp_path / "out" / "Modelfile").symlink_to("/dev/full")
    assert job.perform(asked) == 1
    said = capsys.readouterr().err
    assert said.startswith("nutrition/package: ")
    assert (
        "cannot be written (No space left on device); make room or mend the rights, then build again"
        in said
    )


def test_what_no_one_foresaw_names_the_file_with_its_traceback(
    built_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(built_project, tmp_path, inputs={})
    assert job.perform(asked) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("nutrition/package: unexpected KeyError: ")
    assert f"the traceback is in {asked['report']}: please report it" in said
    assert "Traceback" in Path(asked["report"]).read_text()


def test_debug_shows_the_traceback(
    built_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.perform(request(built_project, tmp_path, inputs={}, debug=True)) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_libraries_warn_each_other_of_is_not_told_to_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT's several lines on an adapter of a tied embedding, before the one line that says what is
    wrong."""
    build = train_nothing(
        tmp_path / "build", lora={"target_modules": ["embed_tokens"]}, tie_word_embeddings=True
    )
    output = fresh(tmp_path / "out")
    asked = {
        "name": "nutrition/merge",
        "stage": "merge",
        "recipe": merge_recipe(bound=0.0).model_dump(),
        "inputs": {
            "base": build.base,
            "adapter": build.adapter,
            "dataset": build.dataset,
            "base_gguf": build.make_base_gguf(),
        },
        "output": str(output),
        "threads": 1,
        "gpus": 0,
        "root": str(tmp_path),
        "about": {"domain": "nutrition", "stage": "merge"},
        "report": str(tmp_path / "report"),
    }
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert job.perform(asked) == 1
    assert [str(warning.message) for warning in warned] == []
    said = capsys.readouterr().err
    assert said.startswith("nutrition/merge: nutrition: merged logits differ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG]
)
def test_a_file_that_cannot_be_written_is_explained(number: int) -> None:
    said, code = job.explain(OSError(number, os.strerror(number), "/models/a.gguf"))
    assert code == "artifact-unwritable"
    assert said.startswith(
        f"/models/a.gguf: cannot be written ({os.strerror(number)}); make room or mend the rights"
    )


def test_explanations_of_other_faults() -> None:
    wrong = "conf/build.yaml: wrong; mend it"
    assert job.explain(ConfigError(wrong)) == (wrong, "config")
    assert str(job.explain(KeyError("x"))) == (
        "unexpected KeyError: 'x'; run it again with --debug, and report what that shows [unexpected]"
    )


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_ran_out_has_a_code_of_its_own(error: Exception) -> None:
    said, code = job.explain(error)
    assert said.startswith("not enough memory; ")
    assert code == "build-memory"
