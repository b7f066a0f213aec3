"""The Snakemake profiles: where the jobs run, and what that machine costs."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from meetara_build.config.yaml_files import read_yaml
from meetara_build.errors import ConfigError, nearest

PROFILES = "conf/profile"
FILE = "config*.yaml"


def profile_names(project: Path) -> list[str]:
    """The Snakemake profiles of this project."""
    return sorted({path.parent.name for path in (project / PROFILES).glob(f"*/{FILE}")})


def profile_folder(project: Path, name: str) -> Path:
    """The folder of a Snakemake profile: of this project by its name, or any by its path.

    Snakemake is given a path too: a name it would look up in the user's folder, where another
    project's may lie.

    Raises:
        ConfigError: there is none.
    """
    if os.sep in name:
        if not any(Path(name).glob(FILE)):
            raise ConfigError(
                f"{name}: no profile; name a folder with a config.yaml, or one of "
                f"{', '.join(profile_names(project))}"
            )
        return Path(name)
    if name not in (known := profile_names(project)):
        raise ConfigError(f"unknown profile '{name}'{nearest(name, known)}")
    return project / PROFILES / name


def profile_hardware(project: Path, name: str) -> str | None:
    """The machine that a profile names in its ``config:``, if it does."""
    return _read_setting(project, name, "hardware")


def profile_prices(project: Path, name: str) -> dict[str, float] | None:
    """US dollars an hour by machine, of the provider that a profile names in its ``config:``; None
    for one's own machine.

    Raises:
        ConfigError: the provider's file is missing or wrong.
    """
    provider = _read_setting(project, name, "provider")
    if provider is None:
        return None
    from meetara_build.config.prices import provider_prices

    return provider_prices(project, provider)


def jobs_at_once(project: Path, name: str) -> int:
    """How many threads' worth of jobs a profile runs side by side."""
    content = _profile(project, name)
    asked = content.get("jobs", content.get("cores", "all"))
    return int(asked) if str(asked).isdigit() else os.cpu_count() or 1


def profile_entries(project: Path, name: str) -> list[str]:
    """What a profile has under ``config:``."""
    entries: Any = _profile(project, name).get("config", [])
    return [str(entry) for entry in entries] if isinstance(entries, list) else []


def _read_setting(project: Path, name: str, wanted: str) -> str | None:
    for entry in profile_entries(project, name):
        key, _, value = entry.partition("=")
        if key == wanted:
            return value
    return None


@cache
def _profile(project: Path, name: str) -> dict[str, Any]:
    return read_yaml(next(profile_folder(project, name).glob(FILE)))
