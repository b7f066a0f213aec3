"""Where the agents' files are: ``plugins/NAME.py`` of a project, and modules that installed
packages name as entry points."""

import re
from pathlib import Path

from meetara_build.errors import ConfigError
from meetara_build.outside import SPEAKER, show_line

FOLDER = "plugins"
GROUP = "meetara_build.agents"


def plugin_files(project: Path) -> dict[str, Path]:
    """Each agent's file by its name, sorted by name; nothing of it is run. Names that no agent can
    have are left out.

    Raises:
        ConfigError: two agents have the same name.
    """
    found = _list_own(project)
    for name, path in _list_installed().items():
        if name in found:
            raise ConfigError(
                f"{found[name]}: an installed package has an agent '{name}' too ({path}); rename "
                "this one"
            )
        found[name] = path
    return {name: found[name] for name in sorted(found) if _can_speak(name)}


def find_misnamed_plugins(project: Path) -> dict[str, str]:
    """By name, as it can be shown, what is wrong with the names that no agent can have."""
    wanted = (
        "an agent's name is of letters, digits and _ . @ -, begins with one of the first two, and "
        "has at most 64; rename it"
    )
    found = {
        name: path
        for name, path in {**_list_installed(), **_list_own(project)}.items()
        if not _can_speak(name)
    }
    return {show_line(name): f"{show_line(path)}: {wanted}" for name, path in found.items()}


def is_project_file(file: Path) -> bool:
    """Whether an agent's file is one of a project's, and no module of an installed package."""
    return file.parent.name == FOLDER and not (file.parent / "__init__.py").exists()


def _list_own(project: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((project / FOLDER).glob("[!_.]*.py"))}


def _can_speak(name: str) -> bool:
    return re.fullmatch(SPEAKER, name) is not None


def _list_installed() -> dict[str, Path]:
    """The files of the entry points, found without importing them."""
    from importlib.machinery import PathFinder
    from importlib.metadata import entry_points

    found = {}
    for point in entry_points(group=GROUP):
        path: list[str] | None = None
        for part in point.module.split("."):
            spec = PathFinder.find_spec(part, path)
            if spec is None:
                break
            path = list(spec.submodule_search_locations or [])
        if spec is not None and spec.origin:
            found[point.name] = Path(spec.origin)
    return found
