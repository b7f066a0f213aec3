"""Where a project is, and what a path in its configuration means."""

import os
from pathlib import Path

from meetara_build.errors import ConfigError

CACHE = ".meetara"
"""The folder of a project that holds what can be worked out again."""


def find_project(start: Path | None = None) -> Path:
    """The folder with ``conf/build.yaml``: this one or the nearest above it.

    Raises:
        ConfigError: there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "conf" / "build.yaml").exists():
            return folder
    raise ConfigError(
        f"{here}: no conf/build.yaml here or above; go to a project, or make one: `meetara-build "
        "init NAME`"
    )


def expand_path(folder: Path, written: str) -> Path:
    """A path as conf/ has it: from a folder, from ``~``, or absolute; links in it are left for
    whoever opens it."""
    return folder / os.path.expanduser(written)  # noqa: PTH111  (pathlib's fails on a file called ~name)


def locate(folder: Path, written: str) -> Path:
    """Where a path as conf/ has it leads now."""
    return expand_path(folder, written).resolve()
