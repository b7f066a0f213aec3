"""A checkpoint is whole and one's own, or it is ignored with a warning."""

import os
from pathlib import Path

import pytest
import torch

from meetara_build.training.checkpoint import FILE, Checkpoint, load, run_name, save

STATE = {"step": 3, "loss": 0.1 + 0.2, "curve": [[1, 2.5, None, 1e-3]]}


def written(folder: Path) -> Path:
    save(folder, "run", Checkpoint({"a": torch.randn(3, 2), "step": torch.tensor(4.0)}, STATE))
    return folder / FILE


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "scalar": torch.tensor(4.0), "random": torch.get_rng_state()}
    save(tmp_path / "new", "run", Checkpoint(tensors, STATE))
    found = load(tmp_path / "new", "run")
    assert found is not None
    assert found.state == STATE
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert load(tmp_path, "run") is None


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty"])
def test_a_damaged_one_is_ignored_with_a_warning(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    if fault == "flipped":
        content[-3] ^= 1
    path.write_bytes({"cut": content[:-5], "flipped": content, "empty": b""}[fault])
    assert load(tmp_path, "run") is None
    assert "damaged" in caplog.text


def test_another_runs_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path)
    assert load(tmp_path, "another") is None
    assert "another base, data or configuration" in caplog.text


def test_a_kill_while_writing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(tmp_path).read_bytes()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_runs_name_depends_on_weights_settings_and_what_is_trained() -> None:
    layer = torch.nn.Linear(4, 4)
    name = run_name(layer, {"seed": 1})
    assert run_name(layer, {"seed": 1}) == name
    assert run_name(layer, {"seed": 2}) != name
    layer.bias.requires_grad_(False)
    frozen = run_name(layer, {"seed": 1})
    assert frozen != name
    layer.weight.data[1, 1] += 1
    assert run_name(layer, {"seed": 1}) != frozen
