"""llama-cpp-python, the converter and its gguf have to come from one source distribution, and
libraries keep caches: see to both."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from meetara_build.errors import SetupError
from meetara_build.outside import parse_json

LLAMA_CPP_PYTHON = "0.3.36"
"""The version this package was proved with; its source distribution carries the converter and gguf
too."""

PARTS = {"gguf": "vendor/llama.cpp/gguf-py", "llama-cpp-scripts": "vendor/llama.cpp"}
"""The folders of the source distribution that are packages of their own."""


def source_folder() -> str:
    """Name of the folder inside the source distribution's archive."""
    return f"llama_cpp_python-{LLAMA_CPP_PYTHON}"


def llama_fault() -> str | None:
    """What does not fit together, in one sentence; None where all is well.

    pip notes in ``direct_url.json`` which folder a package was installed from. A gguf from the
    package index has no such note, and the converter fails with it although its version number is
    the same.
    """
    try:
        installed = distribution("llama-cpp-python").version
    except PackageNotFoundError:
        return "llama-cpp-python is not installed"
    if installed != LLAMA_CPP_PYTHON:
        return f"llama-cpp-python is {installed}, not {LLAMA_CPP_PYTHON}"
    for name, folder in PARTS.items():
        try:
            note = distribution(name).read_text("direct_url.json")
        except PackageNotFoundError:
            return f"{name} is not installed"
        origin = (
            PurePosixPath(unquote(urlparse(parse_json(note).get("url", "")).path))
            if note
            else PurePosixPath()
        )
        if not str(origin).endswith(f"{source_folder()}/{folder}"):
            return (
                f"{name} does not come from the source distribution of llama-cpp-python "
                f"{LLAMA_CPP_PYTHON}"
            )
    return None


def check_llama() -> None:
    """Refuse to work with parts that do not belong together.

    Raises:
        SetupError: naming the part and the command that mends it.
    """
    if fault := llama_fault():
        raise SetupError(
            f"{fault}; run `meetara-build setup`, which installs the three parts of llama.cpp from "
            "one source"
        )


def user_folder(variable: str, name: str) -> Path:
    """A folder of the user's, as libraries look for it: what the variable says, or this name in the
    home."""
    return Path(os.environ.get(variable) or os.path.expanduser(f"~/{name}"))  # noqa: PTH111  (pathlib's fails without a home)


def cache_fault() -> str | None:
    """Why libraries cannot keep their caches where they do by default; None where they can.
    Snakemake does not start without.

    In containers the home is often another user's, or not there.
    """
    folder = user_folder("XDG_CACHE_HOME", ".cache")
    if not folder.is_absolute():
        return f"there is no home, and so no {folder}"
    there = next(one for one in (folder, *folder.parents) if os.access(one, os.F_OK))
    return None if os.access(there, os.W_OK | os.X_OK) else f"{folder} cannot be written"
