"""Which files below conf/ are read: one list, for whoever reads them and for whoever looks whether
they have changed.

A folder may be a link. Only the folders that have a meaning are looked into, so a link to a folder
above is no circle.
"""

import os
from pathlib import Path

from meetara_build.errors import ConfigError

SUFFIX = ".yaml"
PROFILE = "profile"
"""Whose files lie one folder deeper."""


def list_conf(conf: Path) -> tuple[list[str], list[str]]:
    """The folders that are looked into, and every YAML file in them.

    Raises:
        ConfigError: a folder cannot be read.
    """
    groups = _folders(str(conf))
    profiles = [
        folder for group in groups if Path(group).name == PROFILE for folder in _folders(group)
    ]
    folders = [str(conf), *groups, *profiles]
    return folders, [file for folder in folders for file in _files(folder)]


def list_group(conf: Path, group: str) -> dict[str, Path]:
    """The YAML files of a group by their names without the ending: ``conf/base/tiny.yaml`` is
    ``tiny`` of ``base``.

    Raises:
        ConfigError: the folder cannot be read.
    """
    return {path.stem: path for path in map(Path, _files(str(conf / group)))}


def _files(folder: str) -> list[str]:
    return [entry.path for entry in _entries(folder) if entry.name.endswith(SUFFIX)]


def _folders(folder: str) -> list[str]:
    return [entry.path for entry in _entries(folder) if os.path.isdir(entry.path)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What a person put there: editors hide their locks and copies (``.#x.yaml``), and so does
    macOS (``._x.yaml``)."""
    try:
        with os.scandir(folder) as found:
            return sorted(
                (entry for entry in found if not entry.name.startswith((".", "#"))),
                key=lambda one: one.name,
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be read ({error.strerror}); mend its rights, or remove it"
        ) from None
