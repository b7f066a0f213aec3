"""A warm start is pinned to a neighbour's weights by their digest: the neighbour may change, its
follower does not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from projects import build_here, override

from meetara_build.engine.stage_run import run
from meetara_build.errors import BuildError, ConfigError
from meetara_build.graph import load
from meetara_build.plan import plan
from meetara_build.store.manifest import digest_file, read_manifest
from meetara_build.training.race import warm_wins

WEIGHTS = "adapter/adapter_model.safetensors"


def digest(project: Path, domain: str) -> str:
    return digest_file(project / "artifacts" / domain / WEIGHTS)


def follow(project: Path, domain: str, neighbour: str, pin: str | None = None) -> None:
    """Have a domain begin from a neighbour's adapter as it is now."""
    override(
        project, domain, {"training.warm_start": f"{neighbour}@{pin or digest(project, neighbour)}"}
    )


def train(project: Path, domain: str) -> str:
    """Run a domain's adapter stage; the digest of what it gave."""
    graph = load(project)
    run(graph, graph.step("adapter", domain), cold=True, debug=True)
    return digest(project, domain)


@pytest.fixture
def followed(project: Path) -> tuple[Path, str]:
    """A project whose nutrition began from programming's adapter, and that adapter's digest."""
    pin = digest(project, "programming")
    follow(project, "nutrition", "programming")
    train(project, "nutrition")
    return project, pin


def test_the_neighbour_s_weights_are_raced_against_a_cold_start(project: Path) -> None:
    path = project / "artifacts" / "nutrition" / "adapter" / "manifest.json"
    cold = read_manifest(path).metrics
    follow(project, "nutrition", "programming")
    train(project, "nutrition")
    warm = read_manifest(path).metrics
    assert warm["warm_start_loss"] != warm["cold_start_loss"]
    assert warm["warm_start_won"] == warm_wins(warm["warm_start_loss"], warm["cold_start_loss"])
    assert (warm["validation_loss_before"] == cold["validation_loss_before"]) is not warm[
        "warm_start_won"
    ]
    assert digest(project, "programming") in read_manifest(path).made_from["sources"].values()


def test_a_change_of_the_neighbour_leaves_its_follower_alone(followed: tuple[Path, str]) -> None:
    project, pin = followed
    override(project, "programming", {"lora.rank": 8})
    assert train(project, "programming") != pin
    left = {item.step.name for item in plan(load(project)).to_do()}
    assert "nutrition/adapter" not in left
    assert "programming/gguf" in left


def test_a_clean_build_gives_the_same(followed: tuple[Path, str]) -> None:
    project, _ = followed
    before = digest(project, "nutrition")
    shutil.rmtree(project / "artifacts" / "nutrition" / "adapter")
    next((project / "artifacts" / "store" / "blobs").glob(f"*/{before}")).unlink()
    assert train(project, "nutrition") == before


def test_a_pinned_file_is_never_collected(followed: tuple[Path, str], command: Any) -> None:
    project, pin = followed
    override(project, "programming", {"lora.rank": 8})
    build_here(project)
    assert digest(project, "programming") != pin
    assert command(project, "gc", "--max-size", "0").returncode == 0
    assert list((project / "artifacts" / "store" / "blobs").glob(f"*/{pin}"))
    assert not plan(load(project)).to_do()


def test_what_the_store_does_not_have_is_refused_with_what_to_do(project: Path) -> None:
    follow(project, "nutrition", "programming", "0" * 64)
    with pytest.raises(
        ConfigError,
        match="the store has no adapter 000000000000… of programming; build programming, and pin",
    ):
        load(project)


@pytest.mark.parametrize("written", ["programming", "programming@123", "@" + "0" * 64, 7])
def test_a_pin_that_is_none_is_refused(project: Path, written: object) -> None:
    override(project, "nutrition", {"training.warm_start": written})
    with pytest.raises(ConfigError, match=r"training\.warm_start"):
        load(project)


def test_a_circle_is_refused_by_name(project: Path) -> None:
    follow(project, "nutrition", "programming")
    follow(project, "programming", "storytelling")
    follow(project, "storytelling", "nutrition")
    with pytest.raises(
        ConfigError, match="nutrition → programming → storytelling → nutrition; remove one of them"
    ):
        load(project)


def test_an_adapter_of_another_rank_is_refused(project: Path) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    follow(project, "nutrition", "programming")
    with pytest.raises(
        ConfigError,
        match=r"that adapter of programming has rank \d+, and lora.rank is 8 here; make them",
    ):
        load(project)


def test_an_adapter_of_other_layers_is_refused_by_the_training(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    override(project, "nutrition", {"lora.targets": ["q_proj"]})
    follow(project, "nutrition", "programming")
    graph = load(project)
    with pytest.raises(BuildError):
        run(graph, graph.step("adapter", "nutrition"), cold=True)
    assert (
        "that adapter is of another base, lora.rank or lora.targets: pin one that is made with the same"
        in capfd.readouterr().err
    )
