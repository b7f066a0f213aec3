"""The report's pictures: every domain is in them, and the same figures give the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from meetara_build.stages import report

DOMAINS = {"nutrition": "healthcare", "sleep": "healthcare", "programming": "technology"}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for number, domain in enumerate(DOMAINS):
        training = tmp_path / domain / "adapter"
        training.mkdir(parents=True)
        curve = [[1, 6.0, None, 1e-3], [2, 5.5, 5.6 - number / 10, 5e-4]]
        (training / "training.json").write_text(json.dumps({"curve": curve, "validation_loss_before": 6.2}))
        variants = {name: {"loss": 5.5, "bytes": size} for name, size in (("F16", 7_000_000), ("Q4_K_M", 2_500_000))}
        evaluation: dict[str, Any] = {"base": {"loss": 5.0 + number}, "variants": variants}
        (tmp_path / domain / "evaluation.json").write_text(json.dumps(evaluation))
        found |= {f"{domain}/training": training, f"{domain}/evaluation": tmp_path / domain}
    return found


def test_every_domain_category_and_type_is_shown(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = report.run({"domains": DOMAINS}, inputs, tmp_path)
    curves, points = (tmp_path / "loss_curves.svg").read_text(), (tmp_path / "size_quality.svg").read_text()
    for word in (*DOMAINS, "healthcare", "technology"):
        assert word in curves
    assert "F16" in points
    assert "Q4_K_M" in points
    assert metrics == {"domains": 3, "better_than_base": 2}


def test_the_same_figures_give_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        report.run({"domains": DOMAINS}, inputs, tmp_path / folder)
    for name in ("loss_curves.svg", "size_quality.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
