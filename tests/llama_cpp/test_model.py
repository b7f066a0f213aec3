"""llama.cpp through our thin layer: what it loads, writes and says when it cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_builds import fresh, recipe
from small_models import CHATML, make_model, train_sentencepiece_like, train_tokenizer
from transformers import AutoTokenizer

from meetara_build.errors import ArtifactError
from meetara_build.llama_cpp.model import Model, Session, last_words
from meetara_build.stages import gguf
from meetara_build.training.chat import encode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    train_tokenizer(root)
    make_model(root)
    gguf.run(recipe(), {"base": root}, fresh(root / "out"))
    return root


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return folder / "out" / "nutrition-F16.gguf"


def test_special_tokens_in_a_text_are_one_token_each(path: Path) -> None:
    with Model(path, vocab_only=True) as model:
        ids = model.tokenize("<|im_start|><|im_end|>")
        assert [model.text_of(token) for token in ids] == ["<|im_start|>", "<|im_end|>"]
        assert model.is_end(ids[1])
        assert not model.is_end(ids[0])


def test_conversations_are_written_by_the_file_s_own_template(path: Path) -> None:
    with Model(path, vocab_only=True) as model:
        written = model.render([{"role": "user", "content": "hi"}], ask=True)
    assert written == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("train", [train_tokenizer, train_sentencepiece_like])
def test_a_conversation_is_read_as_training_reads_it(
    train: Callable[[Path], None], tmp_path: Path
) -> None:
    """Also where control tokens stand in its texts: they are none there, as in training."""
    train(tmp_path)
    make_model(tmp_path, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with Model(tmp_path / "out" / "nutrition-F16.gguf", vocab_only=True) as model:
        for token in ["water", *tokenizer.get_added_vocab()]:
            messages = [
                {"role": "system", "content": f"{token}Be kind."},
                {"role": "user", "content": f"Is {token} a\n{token}?"},
            ]
            whole = encode(tokenizer, [*messages, {"role": "assistant", "content": f"{token} is."}])
            assert model.prompt(messages) == whole.ids[: whole.mask.index(True)], token
            assert model.tokenize(token, special=False) != model.tokenize(token) or token == "water"


def test_the_default_base_s_own_file_reads_conversations_as_training_does(
    default_base: Any,
) -> None:
    tokenizer, path = default_base
    with Model(path, vocab_only=True) as model:
        for token in tokenizer.get_added_vocab():
            messages = [{"role": "user", "content": f"Is {token} 12 a\n{token}?"}]
            whole = encode(tokenizer, [*messages, {"role": "assistant", "content": f"{token}."}])
            assert model.prompt(messages) == whole.ids[: whole.mask.index(True)]


def test_a_template_is_always_told_the_same_day(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}\n" + CHATML)
    make_model(tmp_path, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))
    with Model(tmp_path / "out" / "nutrition-F16.gguf", vocab_only=True) as model:
        assert (
            model.render([{"role": "user", "content": "hi"}], ask=False)
            == "26 Jul 2024\n<|im_start|>user\nhi<|im_end|>\n"
        )


def test_logits_are_the_same_however_the_text_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list(range(10, 50))
    with Model(path) as model:
        with model.session(64, threads=1, exact=True) as session:
            whole = session.logits(ids)
        monkeypatch.setattr("meetara_build.llama_cpp.model._LOGITS_BUFFER", 4 * model.n_vocab * 7)
        with model.session(64, threads=1, exact=True) as session:
            assert session.step == 7
            pieces = session.logits(ids)
    assert whole.shape == (40, model.n_vocab)
    np.testing.assert_allclose(pieces, whole, atol=2e-3)


def test_only_wanted_positions_are_given(path: Path) -> None:
    ids = [10, 11, 12, 13]
    with Model(path) as model, model.session(16, threads=1) as session:
        whole = session.logits(ids)
        (some,) = session.stream(ids, [False, True, False, True])
        np.testing.assert_array_equal(some, whole[[1, 3]])


def test_one_text_does_not_see_the_one_before(path: Path) -> None:
    with Model(path) as model, model.session(32, threads=1) as session:
        first = session.logits([20, 21, 22])
        session.logits([5, 6, 7, 8, 9])
        np.testing.assert_array_equal(session.logits([20, 21, 22]), first)


def test_generation_takes_the_likeliest_token_each_time(path: Path) -> None:
    with Model(path) as model, model.session(32, threads=1) as session:
        said = session.generate([20, 21, 22], 3)
        whole = session.logits([20, 21, 22, *said])
    assert said == [int(row.argmax()) for row in whole[2 : 2 + len(said)]]


def test_metadata_can_be_replaced_while_loading(path: Path) -> None:
    with Model(path, vocab_only=True, overrides={"tokenizer.ggml.pre": "smollm"}) as model:
        digits = model.tokenize("2024")
    assert len(digits) == 4


def test_what_is_no_gguf_is_refused_with_llama_cpp_s_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"bad.gguf: llama.cpp cannot load this file: .+"):
        Model(tmp_path / "bad.gguf")
    assert last_words() != "it gave no reason"


def test_a_truncated_file_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"half\.gguf"):
        Model(tmp_path / "half.gguf")


def test_nothing_is_printed(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Model(path) as model, model.session(16, threads=1) as session:
        session.logits([1, 2, 3])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


SHARED = list(range(20, 60))
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 16},
    "mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": 16},
}


def stream(session: Session, ids: list[int], first: int) -> np.ndarray:
    """Logits after the tokens from ``first`` on."""
    wanted = [at >= first for at in range(len(ids))]
    return np.concatenate([piece.copy() for piece in session.stream(ids, wanted)])


@pytest.mark.parametrize("kind", KINDS)
def test_what_texts_share_is_read_once_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    """But where a model keeps a state instead of a cache: it reads every text whole."""
    train_tokenizer(tmp_path)
    make_model(tmp_path, kind, **KINDS[kind])
    gguf.run(recipe(), {"base": tmp_path}, fresh(tmp_path / "out"))
    texts = [
        ([*SHARED, 100, 101, 102], 40),
        ([*SHARED, 110, 111], 40),
        ([*SHARED[:30], 9, 8, 7], 31),
        ([*SHARED, 110, 111, 112], 38),  # logits are wanted of a part that is kept
        ([*SHARED, 110, 111, 112], 38),
        ([1, 2, 3], 0),
        (SHARED, 39),
    ]
    with Model(tmp_path / "out" / "nutrition-F16.gguf") as model:
        with model.session(64, threads=1) as session:
            found = [stream(session, ids, first) for ids, first in texts]
            read = session.decoded
        for (ids, first), ours in zip(texts, found, strict=True):
            with model.session(64, threads=1) as alone:
                wanted = stream(alone, ids, first)
            assert ours.shape == wanted.shape == (len(ids) - first, model.n_vocab)
            assert np.abs(ours - wanted).max() < 0.01 * np.abs(wanted).max()
    whole = sum(len(ids) for ids, _ in texts)
    assert read == whole if kind == "mamba" else read < whole / 2


def test_an_adapter_cannot_be_added_to_what_was_read_without_it(path: Path) -> None:
    """What is kept of one adapter's texts would be taken for another's."""
    with Model(path) as model, model.session(16, threads=1) as session:
        session.logits([1, 2, 3])
        with pytest.raises(AssertionError, match="without the adapter"):
            session.apply(path, 1.0)
