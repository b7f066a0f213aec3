"""What a bundle's file says, by the bundle's name."""

from pathlib import Path
from typing import NamedTuple

from meetara_build.config.resolve import Change, list_named
from meetara_build.config.schema import Base, Build, Bundle, Hardware, check
from meetara_build.config.yaml_files import read_yaml


class Bundled(NamedTuple):
    """A bundle, with the configuration of what its domains share.

    ``domains`` are its members, sorted; ``quants`` the types of its base's files.
    """

    name: str
    bundle: Bundle
    domains: list[str]
    quants: list[str]
    base_name: str
    base: Base
    hardware: Hardware
    build: Build
    changes: list[Change]


def read_bundles(project: Path) -> dict[str, Bundle]:
    """Every file ``conf/bundle/NAME.yaml``; none without the folder.

    Raises:
        ConfigError: a file is wrong; every fault of it, each with file, line and key.
    """
    files = list_named(project / "conf", "bundle")
    return {name: check(Bundle, read_yaml(path), path) for name, path in files.items()}
