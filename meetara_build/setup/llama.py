"""Install llama-cpp-python, llama.cpp's converter and its gguf, all three from one source
distribution.

llama.cpp is compiled once a machine: without the parts that nobody uses here, in pieces of several
files, which costs less than half the time, and in a folder that is always the same, so that a
compiler cache (ccache) knows its files again. The wheel is kept in the user's cache; another
environment of the same Python installs it in seconds.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meetara_build.errors import SetupError
from meetara_build.setup.check import LLAMA_CPP_PYTHON, PARTS, llama_fault, source_folder
from meetara_build.setup.pip import run_pip
from meetara_build.setup.places import cache_folder

Report = Callable[[int, int], None]
"""Called with how many steps of the compilation are done, and how many there are."""

OPTIONS = {
    "LLAVA_BUILD": "OFF",
    "CMAKE_PROJECT_INCLUDE": str(Path(__file__).with_name("llama_cpp.cmake")),
    "CMAKE_UNITY_BUILD": "ON",
    "CMAKE_UNITY_BUILD_BATCH_SIZE": "12",
}
"""For CMake: no multimodal part, no library of llama.cpp's own programs, several files of libllama
compiled as one, and what the file says of ggml."""

COMPILERS = ("c++", "g++", "clang++", "cl")
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")


def install_llama(report: Report, log: Path) -> bool:
    """Install what is missing; False where all was there.

    Raises:
        SetupError: a compiler is missing, pip fails, or what it installed does not fit together.
    """
    if llama_fault() is None:
        return False
    cache = cache_folder()
    with _alone(cache):
        source = cache / source_folder()
        try:
            _fetch_source(cache, source, log)
            wheels = cache / "wheels" / _tag()
            if not list(wheels.glob("llama_cpp_python-*.whl")):
                _compile(source, wheels, report, log)
            _install(wheels, source, log)
        finally:
            shutil.rmtree(source, ignore_errors=True)
    if fault := llama_fault():
        raise SetupError(
            f"{fault}, even after installing it; delete {cache} and run `meetara-build setup` again"
        )
    return True


def _fetch_source(cache: Path, source: Path, log: Path) -> None:
    """Unpack the source distribution; pip keeps what it downloaded."""
    shutil.rmtree(source, ignore_errors=True)
    wanted = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"
    words = (
        "download",
        "--no-deps",
        "--no-binary",
        "llama-cpp-python",
        "--dest",
        str(cache),
        wanted,
    )
    run_pip(*words, what=f"{wanted} cannot be fetched", log=log)
    archive = cache / f"{source_folder()}.tar.gz"
    # Early releases of Python 3.11 know no extraction filters.
    safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(cache, **safely)
    archive.unlink()


def _compile(source: Path, wheels: Path, report: Report, log: Path) -> None:
    if not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        raise SetupError(
            "no C++ compiler, with which llama.cpp is compiled once: install one (Debian: `apt "
            "install g++`, macOS: `xcode-select --install`), then run `meetara-build setup` again"
        )
    # Not by CMAKE_ARGS, which is cut at every space of a path; a person's own are heard too.
    settings = [f"--config-settings=cmake.define.{key}={value}" for key, value in OPTIONS.items()]
    settings.append(f"--config-settings=build-dir={source / 'build'}")

    def listen(line: str) -> None:
        if found := _STEP.match(line):
            report(int(found[1]), int(found[2]))

    words = ("wheel", "--verbose", "--no-deps", "--wheel-dir", str(wheels), *settings, str(source))
    cores = {"CMAKE_BUILD_PARALLEL_LEVEL": _cores()}
    run_pip(*words, what="llama.cpp cannot be compiled", log=log, listen=listen, environment=cores)


def _install(wheels: Path, source: Path, log: Path) -> None:
    wheel = next(wheels.glob("llama_cpp_python-*.whl"))
    run_pip(
        "install",
        "--force-reinstall",
        "--no-deps",
        str(wheel),
        what=f"{wheel.name} cannot be installed",
        log=log,
    )
    folders = [str(source / folder) for folder in PARTS.values()]
    run_pip(
        "install",
        "--no-deps",
        "--force-reinstall",
        *folders,
        what="llama.cpp's converter cannot be installed",
        log=log,
    )


def _cores() -> str:
    return os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)


def _tag() -> str:
    """What a compiled wheel fits: this version on this machine, whose processor it is compiled for,
    with these options."""
    words = [
        LLAMA_CPP_PYTHON,
        platform.machine(),
        platform.node(),
        os.environ.get("CMAKE_ARGS", ""),
        _digest_options(),
    ]
    return re.sub(r"[^\w.]+", "_", "-".join(words)).strip("_")


def _digest_options() -> str:
    """A name for how this version of the package has llama.cpp compiled."""
    read = Path(OPTIONS["CMAKE_PROJECT_INCLUDE"]).read_bytes()
    rest = sorted(item for item in OPTIONS.items() if item[0] != "CMAKE_PROJECT_INCLUDE")
    return hashlib.sha256(repr(rest).encode() + read).hexdigest()[:8]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Two set-ups of one user wait for each other."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
