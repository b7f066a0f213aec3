"""Make a new project: configuration, domains, rules."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from meetara_build.cli.output import out
from meetara_build.errors import ConfigError
from meetara_build.outside import quote_command

PARTS = ("conf", "rules", "plugins", "Snakefile")
IGNORED = ".meetara/\n.snakemake/\nartifacts/\n"


def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Copy configuration, rules and plugins into a new folder.

    Raises:
        ConfigError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already and not empty; name a new folder")
    try:
        _copy(origin(), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a project would be refused by the next try
        raise
    out.print(
        f"{folder} is ready:\n  {quote_command('cd', folder)}\n  meetara-build setup\n  "
        "meetara-build plan storytelling\n"
        "  meetara-build build storytelling",
    )


def _copy(origin: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (origin / part).is_dir():
            shutil.copytree(
                origin / part,
                folder / part,
                ignore=shutil.ignore_patterns("__pycache__", ".gitkeep"),
            )
        elif (origin / part).exists():
            shutil.copyfile(origin / part, folder / part)
    (folder / "conf" / "overlay").mkdir(exist_ok=True)
    (folder / ".gitignore").write_text(IGNORED)


def origin() -> Path:
    """Where a project's files lie: inside the installed package, or in the checkout around it."""
    package = Path(__file__).parent.parent
    return package / "project" if (package / "project").is_dir() else package.parent
