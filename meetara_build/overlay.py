"""The accepted decisions of agents, one file a domain below conf/overlay/."""

from pathlib import Path

from meetara_build.errors import ConfigError
from meetara_build.schema import Decision, Overlay, check
from meetara_build.yaml_files import read_yaml


def read_overlay(conf: Path, domain: str) -> list[Decision]:
    """The decisions for a domain, in the order they were taken; none where there is no file.

    Raises:
        ConfigError: the file has unknown keys, or decides the same key twice.
    """
    path = conf / "overlay" / f"{domain}.yaml"
    if not path.exists():
        return []
    decisions = check(Overlay, read_yaml(path), path).decisions
    keys = [decision.key for decision in decisions]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{path}: '{key}' is decided twice; keep one of the decisions")
    return decisions
