"""The table of stages: whatever else knows something of a stage has it from there."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from meetara_build.errors import ConfigError
from meetara_build.graph.own_inputs import MORE
from meetara_build.graph.stages import (
    BASE,
    BUNDLE,
    CHAIN,
    ENDS,
    MADE_BASE,
    NAMES,
    RESERVED,
    RULES,
    STAGE,
    STAGES,
    list_reached,
    refuse_reserved,
    row_of,
)
from meetara_build.plan.workload import SIZES, WORK
from meetara_build.rounds.track_record import MEASURED_BY


def test_each_stage_has_a_folder_of_its_own() -> None:
    targets = {BASE: "base/tiny", MADE_BASE: "base/tiny", BUNDLE: "bundle/all"}
    folders = [row.place(targets.get(row.of, "nutrition")) for row in STAGES]
    assert len(set(folders)) == len(folders)
    inside = [(one, other) for one in folders for other in folders if other.startswith(f"{one}/")]
    assert not inside, "a folder that is replaced whole would take another stage's with it"
    assert row_of("merge", "nutrition").place("nutrition") == "nutrition/merged"
    assert row_of("evaluate", "nutrition").place("nutrition") == "nutrition/evaluation"
    assert row_of("base", "base/tiny").place("base/tiny") == "base/tiny/model"
    assert row_of("gguf", "base/tiny").place("base/tiny") == "base/tiny/gguf"
    assert row_of("report", "report").place("report") == "report"


def test_a_stage_comes_after_those_it_reads() -> None:
    for row in STAGES:
        for read in row.inputs.values():
            above = RULES[f"base_{read.stage}"] if read.of else STAGE[read.stage]
            assert STAGES.index(above) < STAGES.index(row), f"{row.rule} reads {read.stage}"


@pytest.mark.parametrize("row", STAGES, ids=lambda row: row.rule)
def test_what_a_row_names_is_there(row: Any) -> None:
    assert row.work in WORK
    assert row.size in SIZES
    assert set(row.more) <= set(MORE)
    assert callable(import_module(f"meetara_build.stages.{row.name}").run)


def test_a_stage_of_bases_and_of_domains_is_told_by_its_target() -> None:
    assert row_of("gguf", "nutrition") is STAGE["gguf"] is RULES["gguf"]
    assert row_of("gguf", "base/tiny") is RULES["base_gguf"]
    assert row_of("base", "base/tiny") is RULES["base"]
    assert len(NAMES) == len(STAGES) - 1


def test_a_build_is_for_what_nothing_else_reads() -> None:
    assert [row.name for row in ENDS] == ["package", "report"]
    assert [row.name for row in CHAIN] == [
        *("dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package")
    ]


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("priority", []),
        ("evaluation.max_loss", ["package"]),
        ("evaluation.max_kl", ["package"]),
        ("evaluation.max_records", ["baseline", "evaluate", "package"]),
        ("gguf.tensor_types", ["gguf", "evaluate", "package"]),
        ("domain.quants", ["merge", "gguf", "evaluate", "package"]),
        ("lora.rank", ["adapter", "merge", "gguf", "evaluate", "package"]),
        ("training", ["adapter", "merge", "gguf", "evaluate", "package"]),
        ("data.drop", ["dataset", "adapter", "baseline", "merge", "gguf", "evaluate", "package"]),
        ("base", ["adapter", "baseline", "merge", "gguf", "evaluate", "package"]),
    ],
)
def test_a_key_costs_the_stages_that_read_it_and_those_after(key: str, stages: list[str]) -> None:
    assert [row.name for row in list_reached(key)] == stages


def test_every_figure_that_is_promised_has_the_stage_that_shows_it() -> None:
    assert MEASURED_BY == {
        "loss": "adapter",
        "seconds": "adapter",
        "memory": "adapter",
        "size": "gguf",
    }


@pytest.mark.parametrize("name", ["base", "store", "logs", "all_domains", "package", "merge_kept"])
def test_no_domain_has_the_name_of_a_rule_or_of_a_folder_beside_it(name: str) -> None:
    assert name in RESERVED
    with pytest.raises(
        ConfigError, match=f"'{name}' cannot name a domain; use a word that is none"
    ):
        refuse_reserved(name)
    refuse_reserved("nutrition")


def test_the_table_loads_nothing_heavy() -> None:
    """Snakemake and every job read it."""
    said = subprocess.run(
        [sys.executable, "-c", "import meetara_build.graph.stages, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.split()
    assert "meetara_build.graph.stages" in said
    assert not {"pydantic", "torch", "transformers", "hydra", "yaml"} & set(said)
