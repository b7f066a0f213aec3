"""Many adapters on one base: each answer is that of its adapter alone, however many there are."""

from pathlib import Path

import numpy as np
import pytest

from meetara_build.errors import ArtifactError, ProofError
from meetara_build.llama_cpp import answering
from meetara_build.llama_cpp.answering import Adapter, Answering
from meetara_build.llama_cpp.model import Floats


def places(project: Path) -> tuple[Path, dict[str, Path]]:
    root = project / "artifacts"
    domains = ("nutrition", "programming", "storytelling")
    loras = {domain: root / domain / "gguf" / f"{domain}-lora.gguf" for domain in domains}
    return root / "base" / "mini" / "gguf" / "mini-F16.gguf", loras


def read(model: Answering, adapter: Adapter | None, count: int = 20) -> list[Floats]:
    """The logits of some steps: tokens alone would hide small differences."""
    found = list[Floats]()

    def choose(logits: Floats) -> int:
        found.append(logits.copy())
        return int(np.argmax(logits))

    prompt = model.model.prompt([{"role": "user", "content": "What is in bread? " * 30}])
    for _ in model.write(prompt, adapter, choose):
        if len(found) == count:
            break
    return found


def test_an_answer_is_the_same_whatever_was_answered_before_it(
    built_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, loras = places(built_project)
    monkeypatch.setattr(answering, "LOADED", 2)  # so that of three one is always out of memory
    with_all = Answering(base, 4096, threads=1)
    adapters = {domain: with_all.load(lora) for domain, lora in loras.items()}
    later = {domain: read(with_all, adapter) for domain, adapter in adapters.items()}
    again = {domain: read(with_all, adapter) for domain, adapter in adapters.items()}
    base_alone = read(with_all, None)
    with_all.close()
    for domain, lora in loras.items():
        fresh = Answering(base, 4096, threads=1)
        first = read(fresh, fresh.load(lora))
        fresh.close()
        assert np.array_equal(first, later[domain])
        assert np.array_equal(first, again[domain])
        assert not np.array_equal(first[0], base_alone[0])


def test_an_adapter_stays_what_it_was_though_a_build_replaces_its_file(
    built_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, loras = places(built_project)
    monkeypatch.setattr(answering, "LOADED", 1)
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(loras["nutrition"].read_bytes())
    model = Answering(base, 4096, threads=1)
    adapter, other = model.load(mine), model.load(loras["programming"])
    new = tmp_path / "new"
    new.write_bytes(loras["storytelling"].read_bytes())
    new.replace(mine)
    read(model, other, 1)
    assert np.array_equal(read(model, adapter), read(model, model.load(loras["nutrition"])))
    model.close()


def test_an_adapter_that_cannot_be_loaded_is_named(built_project: Path, tmp_path: Path) -> None:
    base, _ = places(built_project)
    (tmp_path / "broken-lora.gguf").write_bytes(b"GGUF and no more")
    model = Answering(base, 4096, threads=1)
    with pytest.raises(ProofError, match=r"^broken-lora\.gguf: llama\.cpp cannot load"):
        model.load(tmp_path / "broken-lora.gguf")
    assert read(model, None)
    model.close()


def test_a_base_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(ArtifactError, match=r"base\.gguf: llama\.cpp cannot load"):
        Answering(tmp_path / "base.gguf", 4096, threads=1)


def test_an_answer_ends_where_the_context_does(built_project: Path) -> None:
    base, _ = places(built_project)
    model = Answering(base, 64, threads=1)
    prompt = model.model.prompt([{"role": "user", "content": "Hi"}])
    written = [token for token in model.write(prompt, None, lambda _: 5) if token >= 0]
    assert len(prompt) + len(written) == 65, "the last token needs no room: nothing follows it"
    with pytest.raises(ValueError, match="in a context of 64"):
        next(model.write([5] * 64, None, lambda _: 5))
    model.close()
