"""The three parts of llama.cpp come from one source distribution, or nothing runs."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from meetara_build.errors import SetupError
from meetara_build.setup import check
from meetara_build.setup.check import LLAMA_CPP_PYTHON, cache_fault, check_llama, llama_fault


def installed(monkeypatch: pytest.MonkeyPatch, **parts: tuple[str, str | None] | None) -> None:
    """Pretend that these packages are installed: version and folder they came from."""

    def distribution(name: str) -> SimpleNamespace:
        found = parts[name.replace("-", "_")]
        if found is None:
            raise PackageNotFoundError(name)
        version, folder = found
        note = f'{{"url": "file:///tmp/x/{folder}"}}' if folder else None
        return SimpleNamespace(version=version, read_text=lambda _: note)

    monkeypatch.setattr(check, "distribution", distribution)


SOURCE = f"llama_cpp_python-{LLAMA_CPP_PYTHON}/vendor/llama.cpp"
GOOD = {
    "llama_cpp_python": (LLAMA_CPP_PYTHON, None),
    "gguf": ("0.19.0", f"{SOURCE}/gguf-py"),
    "llama_cpp_scripts": ("0.0.0", SOURCE),
}


def test_this_environment_fits_together() -> None:
    assert llama_fault() is None


def test_parts_of_one_source_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, **GOOD)
    check_llama()


@pytest.mark.parametrize(
    ("part", "found", "said"),
    [
        ("llama_cpp_python", None, "llama-cpp-python is not installed"),
        (
            "llama_cpp_python",
            ("0.3.35", None),
            f"llama-cpp-python is 0.3.35, not {LLAMA_CPP_PYTHON}",
        ),
        ("gguf", None, "gguf is not installed"),
        ("gguf", ("0.19.0", None), "gguf does not come from the source"),
        (
            "llama_cpp_scripts",
            ("0.0.0", SOURCE.replace("0.3.36", "0.3.35")),
            "llama-cpp-scripts does not come",
        ),
    ],
)
def test_a_mismatch_is_named_with_the_command_that_mends_it(
    part: str, found: tuple[str, str | None] | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **{**GOOD, part: found})
    with pytest.raises(SetupError, match=f"{said}.*meetara-build setup"):
        check_llama()


@pytest.mark.parametrize(
    ("home", "caches", "said"),
    [
        ("{}", "", None),
        ("{}/not/there/yet", "", None),
        ("{}/file", "", "{}/file/.cache cannot be written"),
        ("{}/file", "{}/caches", None),
    ],
)
def test_where_libraries_keep_their_caches_can_be_written_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, caches: str, said: str | None
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", home.format(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", caches.format(tmp_path))
    assert cache_fault() == (said and said.format(tmp_path))
