"""A domain that is its adapter alone, built, asked, compared, verified (``gguf.files: lora``)."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import damage
from projects import override


@pytest.fixture
def adapters(project: Path, command: Any) -> Path:
    """A built project, in which nutrition is built again as an adapter alone."""
    override(project, "nutrition", {"gguf.files": "lora"})
    done = command(project, "build", "nutrition")
    assert done.returncode == 0, done.stderr
    return project


def test_it_is_built_asked_compared_and_verified(adapters: Path, command: Any) -> None:
    own = adapters / "artifacts" / "nutrition"
    models = {path.name for path in (own / "gguf").glob("*.gguf")}
    assert models == {"nutrition-lora.gguf"}

    words = ["chat", "nutrition", "How much protein do I need?", "--tokens", "8", "--json"]
    answer = json.loads(command(adapters, *words).stdout)
    assert answer["model"].endswith("base/mini/quantized/mini-Q4_K_M.gguf")
    asked = ["--count", "2", "--tokens", "8", "--json"]
    rows = json.loads(command(adapters, "compare", "nutrition:F16", "base:mini", *asked).stdout)
    assert any(row["nutrition:F16"] != row["base:mini"] for row in rows), "the adapter is used"

    done = command(adapters, "verify", "nutrition")
    assert done.returncode == 0, done.stdout
    done = command(adapters, "verify", str(own / "package"))
    assert done.returncode == 0, done.stdout
    damage(adapters / "artifacts" / "base" / "mini" / "quantized" / "mini-Q8_0.gguf")
    for what in ("nutrition", "base/mini", str(own / "package")):
        done = command(adapters, "verify", what)
        assert done.returncode == 1
        assert "mini-Q8_0.gguf: its content is not what was built" in done.stdout

    done = command(adapters, "verify", "nutrition", "--repair")
    assert done.returncode == 0, done.stderr
    assert command(adapters, "verify", "nutrition").returncode == 0


def test_its_figures_are_those_of_the_merged_model(adapters: Path, command: Any) -> None:
    path = adapters / "artifacts" / "nutrition" / "evaluation" / "evaluation.json"
    alone = json.loads(path.read_text())["variants"]
    override(adapters, "nutrition", {"gguf.files": "both"})
    assert command(adapters, "build", "nutrition").returncode == 0
    merged = json.loads(path.read_text())["variants"]
    assert set(alone) == set(merged) == {"F16", "Q8_0", "Q4_K_M"}
    for quant, figures in alone.items():
        assert figures["loss"] == pytest.approx(merged[quant]["loss"], rel=0.01)
