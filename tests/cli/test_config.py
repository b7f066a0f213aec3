"""config: every value of a domain's configuration, and the file, line, agent or command line that
decided it."""

import json
from pathlib import Path
from typing import Any

import pytest
from projects import edit, override, small_project, write_yaml

from meetara_build.cli.config import config
from meetara_build.config import auto_precision
from meetara_build.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = small_project(tmp_path / "project", ["nutrition", "programming"])
    override(made, "hardware/cpu", {"training.patience": 8})
    override(made, "nutrition", {"lora.alpha": "${lora.rank}", "training.topic_weights.labels": 2})
    decided = {"key": "lora.rank", "value": 8, "agent": "tuner", "reason": "it was better"}
    write_yaml(made / "conf" / "overlay" / "nutrition.yaml", {"decisions": [decided]})
    monkeypatch.chdir(made)
    return made


def values(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    config("nutrition", list(words), as_json=True)
    return {one["key"]: one for one in json.loads(capsys.readouterr().out)["values"]}


def text_at(project: Path, one: dict[str, Any]) -> str:
    """The line that a value is said to come from."""
    return (project / one["file"]).read_text().splitlines()[one["line"] - 1].strip()


def test_every_value_names_the_line_that_decided_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = values(capsys, "training.epochs=9", "+evaluation.max_kl.Q3_K_M=0.4")
    for key, file, line in [
        ("seed", "conf/build.yaml", "seed: 17"),
        ("base", "conf/build.yaml", "- base: mini"),
        ("hardware", "conf/build.yaml", "- hardware: cpu"),
        ("training.learning_rate", "conf/base/mini.yaml", "learning_rate: 0.002"),
        ("base.model.layers", "conf/base/mini.yaml", "layers: 1"),
        ("training.patience", "conf/hardware/cpu.yaml", "patience: 8"),
        ("hardware.threads", "conf/hardware/cpu.yaml", "threads: 1"),
        ("lora.alpha", "conf/domain/nutrition.yaml", "alpha: ${lora.rank}"),
        ("training.topic_weights.labels", "conf/domain/nutrition.yaml", "labels: 2"),
        ("domain.category", "conf/domain/nutrition.yaml", "category: healthcare"),
        ("lora.rank", "conf/overlay/nutrition.yaml", "- key: lora.rank"),
    ]:
        assert (found[key]["file"], text_at(project, found[key])) == (file, line), key
    assert (found["lora.alpha"]["value"], found["lora.rank"]["agent"]) == (8.0, "tuner")
    assert found["lora.rank"]["reason"] == "it was better"
    assert (found["training.epochs"]["value"], found["training.epochs"]["file"]) == (
        9,
        "command line",
    )
    assert found["evaluation.max_kl.Q3_K_M"]["file"] == "command line"
    assert found["domain.locked"]["file"] is None, "what the schema gives"


def test_a_precision_found_out_shows_what_it_became(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_precision, "_find_best", lambda: "bfloat16")
    edit(project / "conf" / "hardware" / "cpu.yaml", "precision", "auto")
    found = values(capsys)["hardware.precision"]
    assert (found["value"], found["here"], found["file"]) == (
        "auto",
        "bfloat16",
        "conf/hardware/cpu.yaml",
    )
    config("nutrition")
    shown = next(line for line in capsys.readouterr().out.splitlines() if "precision" in line)
    assert shown.startswith("hardware.precision: auto (bfloat16 here)")
    assert values(capsys)["training.epochs"]["here"] == 2


def test_a_choice_names_its_file_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    override(project, "nutrition", {"base": "smollm2_360m"})
    found = values(capsys, "hardware=t4")
    assert (found["base"]["value"], found["base"]["file"]) == (
        "smollm2_360m",
        "conf/domain/nutrition.yaml",
    )
    assert text_at(project, found["base"]) == "- override /base: smollm2_360m"
    assert (found["hardware"]["value"], found["hardware"]["file"]) == ("t4", "command line")
    assert found["hardware.device"]["file"] == "conf/hardware/t4.yaml"


def test_a_line_for_each_value(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    config("nutrition", ["training.epochs=9"])
    lines = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    shown = {first: second.strip() for first, second in lines}
    assert shown["training.epochs: 9"] == "command line"
    assert shown["lora.rank: 8"] == "conf/overlay/nutrition.yaml:2 (tuner: it was better)"
    assert shown["keep_merged: false"].startswith("conf/build.yaml:")
    assert shown["domain.locked: []"] == "default"


def test_a_password_is_not_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(project / "conf" / "build.yaml", "context.url", "postgresql://me:sesame@host/name")
    assert values(capsys)["context.url"]["value"] == "postgresql://me:***@host/name"


def test_a_domain_that_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown domain 'nutritoin'; did you mean 'nutrition'\?"
    ):
        config("nutritoin")


def test_the_command_takes_the_words_of_a_plan(project: Path, command: Any) -> None:
    done = command(project, "config", "nutrition", "training.epochs=9", "--json")
    assert done.returncode == 0, done.stderr
    shown = {one["key"]: one["value"] for one in json.loads(done.stdout)["values"]}
    assert shown["training.epochs"] == 9
    done = command(project, "config", "nutrition", "training.epoch=9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown key 'training.epoch'; did you mean 'training.epochs'?" in done.stderr
