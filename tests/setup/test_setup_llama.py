"""llama.cpp is compiled without the parts that nobody uses, once a machine; tests/test_wheel.py
does it whole."""

import shutil
from pathlib import Path

import pytest

from meetara_build.errors import SetupError
from meetara_build.setup import llama
from meetara_build.setup.llama import OPTIONS, install_llama


def test_what_is_all_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not install_llama(lambda done, steps: None, tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_the_parts_that_are_not_compiled_are_not_there() -> None:
    import llama_cpp

    libraries = {
        path.name.split(".")[0] for path in (Path(llama_cpp.__file__).parent / "lib").iterdir()
    }
    assert libraries >= {"libllama", "libggml"}
    assert not libraries & {"libmtmd", "libllama-common"}


def test_the_file_for_cmake_leaves_out_what_is_not_used_and_what_crashes() -> None:
    """ggml's files do not compile as one piece on every processor, and its products for Intel's
    matrix units crash."""
    read = Path(OPTIONS["CMAKE_PROJECT_INCLUDE"]).read_text()
    assert "LLAMA_BUILD_COMMON OFF" in read
    ggml = read[read.index('STREQUAL "ggml"') :]
    assert "set(CMAKE_UNITY_BUILD OFF)" in ggml
    assert "-U__AMX_INT8__" in ggml


def test_no_library_has_products_for_matrix_units() -> None:
    import llama_cpp

    (library,) = (Path(llama_cpp.__file__).parent / "lib").glob("*ggml-cpu.so")
    assert b"ggml_backend_amx" not in library.read_bytes()


def test_no_compiler_is_said_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        SetupError, match=r"no C\+\+ compiler.*install one.*then run `meetara-build setup` again"
    ):
        llama._compile(tmp_path, tmp_path / "wheels", lambda done, steps: None, tmp_path / "log")


def test_another_machine_or_other_options_get_a_wheel_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = llama._tag()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    assert llama._tag() not in (plain, "")
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert "elsewhere" in llama._tag()


def test_other_settings_of_ours_get_a_wheel_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = llama._tag()
    monkeypatch.setitem(OPTIONS, "CMAKE_UNITY_BUILD_BATCH_SIZE", "6")
    assert llama._tag() != plain
