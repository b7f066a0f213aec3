"""``precision: auto``: found once for a processor, kept for every project, never a fault."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meetara_build.config import auto_precision as precision
from meetara_build.config.auto_precision import kept_file, resolve_precision


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = tmp_path / "cpuinfo"
    flags.write_text("model name : Some processor\nflags : avx2 avx512f avx512_bf16\n")
    monkeypatch.setattr(precision, "PROCESSOR", flags)
    precision._find_best.cache_clear()
    yield
    precision._find_best.cache_clear()


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> list[str | None]:
    """Have torch say these, one after the other; what it has not been asked for yet."""
    left = list(answers)
    monkeypatch.setattr(precision, "_ask_torch", lambda: left.pop(0))
    return left


def forget() -> None:
    """As another process."""
    precision._find_best.cache_clear()


def test_a_precision_that_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    assert [resolve_precision(said) for said in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_torch_is_asked_once_whatever_it_would_say_later(monkeypatch: pytest.MonkeyPatch) -> None:
    left = answer(monkeypatch, "bfloat16", "float32")
    found = []
    for _ in range(3):
        found.append(resolve_precision("auto"))
        forget()
    assert (found, left) == (["bfloat16"] * 3, ["float32"])


def test_a_processor_without_bfloat16_has_float32_and_torch_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch)
    precision.PROCESSOR.write_text("flags : avx2 avx512f\n")
    assert resolve_precision("auto") == "float32"
    assert not kept_file().exists()


def test_another_processor_or_torch_is_asked_anew_and_none_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, "bfloat16", "float32")
    assert resolve_precision("auto") == "bfloat16"
    forget()
    monkeypatch.setattr(precision.journal, "machine", lambda: "another")
    assert resolve_precision("auto") == "float32"
    assert sorted(json.loads(kept_file().read_text()).values()) == ["bfloat16", "float32"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_answer_is_found_anew(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_file().parent.mkdir(parents=True)
    kept_file().write_text(content)
    answer(monkeypatch, "bfloat16")
    assert resolve_precision("auto") == "bfloat16"
    assert "bfloat16" in json.loads(kept_file().read_text()).values()


def test_a_torch_that_cannot_be_asked_is_float32_and_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, None, "bfloat16")
    assert resolve_precision("auto") == "float32"
    forget()
    assert resolve_precision("auto") == "bfloat16"


def test_the_probe_s_process_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision._ask_torch() in ("float32", "bfloat16")
    monkeypatch.setattr(precision, "PROBE", "meetara_build.no_such_module")
    assert precision._ask_torch() is None
