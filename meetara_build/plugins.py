"""Where the agents' files are: ``plugins/NAME.py`` of a project, and modules that installed packages name as entry points."""

from pathlib import Path

from meetara_build.errors import ConfigError

FOLDER = "plugins"
GROUP = "meetara_build.agents"


def plugin_files(project: Path) -> dict[str, Path]:
    """Each agent's file by its name, sorted by name; nothing of it is run.

    Raises:
        ConfigError: two agents have the same name.
    """
    found = {path.stem: path for path in sorted((project / FOLDER).glob("[!_.]*.py"))}
    for name, path in _installed().items():
        if name in found:
            raise ConfigError(
                f"{found[name]}: an installed package has an agent '{name}' too ({path}); rename this one"
            )
        found[name] = path
    return dict(sorted(found.items()))


def _installed() -> dict[str, Path]:
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
