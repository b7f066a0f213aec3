"""Answers written side by side are those that each prompt gets by itself."""

from pathlib import Path

import numpy as np
import pytest
from gguf_builds import fresh, recipe
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_model, train_tokenizer

from meetara_build.errors import ArtifactError, ProofError
from meetara_build.llama_cpp import generation
from meetara_build.llama_cpp.generation import (
    Question,
    Written,
    count_shared,
    has_looped,
    write_answers,
)
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import gguf

TEXTS = ["How much?", "How many of them are there?", "a", "How much?", "Dogs jump over the fence."]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    train_tokenizer(root)
    make_model(root)
    gguf.run(recipe(), {"base": root}, fresh(root / "out"))
    return root / "out" / "nutrition-F16.gguf"


def ask(prompts: list[list[int]]) -> list[Question]:
    return [Question(prompt) for prompt in prompts]


def write_alone(model: Model, prompt: list[int], count: int) -> list[int]:
    with model.session(len(prompt) + count, threads=1) as session:
        return session.generate(prompt, count)


@pytest.mark.parametrize("count", [1, 12])
def test_each_is_what_its_prompt_gets_alone(path: Path, count: int) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text) for text in TEXTS]
        together = write_answers(model, ask(prompts), count, threads=1)
        assert [one.tokens for one in together] == [
            write_alone(model, prompt, count) for prompt in prompts
        ]


def test_more_than_fit_side_by_side_are_written_in_turns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text) for text in TEXTS]
        whole = write_answers(model, ask(prompts), 8, threads=1)
        monkeypatch.setattr(generation, "AT_ONCE", 2)
        assert write_answers(model, ask(prompts), 8, threads=1) == whole


def test_prompts_longer_than_a_step_are_read_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text * 3) for text in TEXTS]
        whole = write_answers(model, ask(prompts), 8, threads=1)
        monkeypatch.setattr(generation, "STEP", 5)
        assert write_answers(model, ask(prompts), 8, threads=1) == whole


def test_an_answer_that_the_model_ends_is_told_from_one_that_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text) for text in TEXTS]
        cut = write_answers(model, ask(prompts), 6, threads=1)
        assert [len(one.tokens) for one in cut if not one.ended] == [6] * 5
        stop = cut[1].tokens[3]
        monkeypatch.setattr(model, "is_end", lambda token: token == stop)
        ended = write_answers(model, ask(prompts), 6, threads=1)[1]
        place = cut[1].tokens.index(stop)
        assert ended == Written(cut[1].tokens[:place], ended=True)


def test_no_prompt_gets_no_answer_and_one_without_a_token_is_refused(path: Path) -> None:
    with Model(path) as model:
        assert write_answers(model, [], 5, threads=1) == []
        with pytest.raises(ValueError, match="without a token"):
            write_answers(model, ask([[1], []]), 5, threads=1)


def test_a_file_that_is_no_adapter_is_refused(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "nutrition-lora.gguf"
    broken.write_bytes(b"no adapter")
    with Model(path) as model, pytest.raises(ProofError, match="cannot load this adapter"):
        write_answers(model, ask([[1, 2]]), 5, threads=1, lora=broken)


def test_more_room_than_there_is_is_refused(path: Path) -> None:
    with Model(path) as model, pytest.raises(ArtifactError, match=r"no context of .* tokens"):
        write_answers(model, ask([[1, 2]]), 2**31 - 10, threads=1)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=4))
def test_what_all_begin_with_leaves_each_a_token(prompts: list[list[int]]) -> None:
    shared = count_shared(prompts)
    assert all(len(prompt) > shared for prompt in prompts)
    assert len({tuple(prompt[:shared]) for prompt in prompts}) == 1


def weigh_alone(model: Model, prompt: list[int], choice: list[int]) -> float:
    ids = [*prompt, *choice]
    with model.session(len(ids), threads=1) as session:
        rows = session.logits(ids)[len(prompt) - 1 : -1].astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return -float(rows[range(len(choice)), choice].mean())


@pytest.mark.parametrize("step", [512, 3])
def test_each_choice_is_as_likely_as_it_is_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(generation, "ASKED", step)
    with Model(path) as model:
        choices = [model.tokenize(text) for text in ("ten", "It depends on the day.", "b")]
        questions = [Question(model.tokenize(text), choices) for text in TEXTS]
        found = write_answers(model, questions, 6, threads=1)
        for question, one in zip(questions, found, strict=True):
            alone = [weigh_alone(model, list(question.prompt), choice) for choice in choices]
            assert one.nats == pytest.approx(alone, abs=2e-3)


def test_choices_change_no_answer(path: Path) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text) for text in TEXTS]
        weighed = [Question(prompt, [prompt, [1, 2, 3]]) for prompt in prompts]
        plain = write_answers(model, ask(prompts), 12, threads=1)
        found = write_answers(model, weighed, 12, threads=1)
        assert [one._replace(nats=()) for one in found] == plain


def test_a_choice_without_a_token_is_refused(path: Path) -> None:
    with Model(path) as model, pytest.raises(ValueError, match="without a token"):
        write_answers(model, [Question([1], [[2], []])], 5, threads=1)


@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.lists(st.integers(10, 19), min_size=1, max_size=16),
    st.integers(3, 9),
)
def test_what_comes_round_again_and_again_is_a_loop(
    before: list[int], loop: list[int], times: int
) -> None:
    long_enough = len(loop) * times >= 24
    assert has_looped(before + loop * times) or not long_enough


@given(st.lists(st.integers(), unique=True))
def test_what_never_comes_again_is_no_loop(tokens: list[int]) -> None:
    assert not has_looped(tokens)


def test_an_answer_ends_where_it_loops_and_not_by_itself(path: Path) -> None:
    with Model(path) as model:
        prompts = [model.tokenize(text) for text in TEXTS]
        for one in write_answers(model, ask(prompts), 200, threads=1):
            assert one.ended or len(one.tokens) == 200 or has_looped(one.tokens)
            assert not has_looped(one.tokens[:-1])
