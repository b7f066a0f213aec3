"""Logits are held to a bound at every position at which the reference holds to itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_model, train_tokenizer
from transformers import AutoModelForCausalLM

from meetara_build.errors import LogitsError, ProofError
from meetara_build.llama_cpp.model import Floats
from meetara_build.stages.gguf import proof

BOUND = 0.02


def logits(positions: int = 40) -> Floats:
    drawn: Floats = np.random.default_rng(3).normal(size=(positions, 64)).astype(np.float32)
    return drawn


def wrong_at(theirs: Floats, *places: int, by: float = 0.2) -> Floats:
    """The same logits but for some positions, which are off by this share of their spread."""
    ours = theirs.copy()
    ours[list(places)] += by * np.random.default_rng(4).normal(size=64).astype(np.float32)
    return ours


def unstable(*places: int, of: int = 40) -> Callable[[], np.ndarray]:
    found = np.zeros(of, dtype=bool)
    found[list(places)] = True
    return lambda: found


def prove(theirs: Floats, ours: Floats, find: Callable[[], np.ndarray] | None) -> dict[str, float]:
    return proof.prove_logits("a.gguf", "itself", [(theirs, ours)], BOUND, find_unstable=find)


def test_a_position_at_which_the_reference_does_not_hold_to_itself_says_nothing() -> None:
    theirs = logits()
    ours = wrong_at(theirs, 7)
    with pytest.raises(ProofError, match=r"logits differ from those of itself by 0\.\d+ of their"):
        prove(theirs, ours, None)
    found = prove(theirs, ours, unstable(7))
    assert (found["positions"], found["unstable_positions"], found["worst"]) == (39, 1, 0.0)


def test_a_fault_elsewhere_is_seen_all_the_same() -> None:
    theirs = logits()
    with pytest.raises(ProofError, match="logits differ"):
        prove(theirs, wrong_at(theirs, 7, 20), unstable(7))


def test_where_many_positions_are_unstable_none_is_left_out() -> None:
    theirs = logits()
    with pytest.raises(ProofError, match="logits differ"):
        prove(theirs, wrong_at(theirs, 3), unstable(*range(5)))


def test_what_is_no_number_is_refused_wherever_it_is() -> None:
    theirs = logits()
    ours = theirs.copy()
    ours[7] = np.nan
    with pytest.raises(LogitsError):
        prove(theirs, ours, unstable(7))


def test_nobody_is_asked_where_the_bound_is_kept() -> None:
    def fail() -> np.ndarray:
        raise AssertionError

    theirs = logits()
    assert "unstable_positions" not in prove(theirs, wrong_at(theirs, 7, by=0.005), fail)


def test_a_position_is_unstable_if_a_rounding_of_embeddings_moves_it(tmp_path: Path) -> None:
    """A layer that multiplies what a token differs by from the rest: steady text stays, and the
    token that is blown up is found; nothing of the model is changed."""
    train_tokenizer(tmp_path, vocabulary=400)
    make_model(tmp_path, "llama", hidden_size=64, intermediate_size=96)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompts = [list(range(10, 26))]

    def blow_up(_: object, __: object, hidden: torch.Tensor) -> torch.Tensor:
        blown = hidden.clone()
        blown[:, 5] = torch.sin(hidden[:, 5] * 1e5)
        return blown

    with torch.no_grad():
        steady = [proof.torch_logits(model, ids) for ids in prompts]
        assert not proof.find_unstable(model, prompts, steady, BOUND).any()
        hook = model.model.layers[-1].mlp.down_proj.register_forward_hook(blow_up)
        shaken = [proof.torch_logits(model, ids) for ids in prompts]
        found = proof.find_unstable(model, prompts, shaken, BOUND)
        hook.remove()
    assert np.flatnonzero(found).tolist() == [5]
    assert np.array_equal(proof.torch_logits(model, prompts[0]), steady[0])
