"""A group of commands: each has a file of its own, which is imported when the command is called or
completed, not when it is listed.

So a command's file imports what it needs at its top, as any other. Only what takes long to import
(pydantic, sqlalchemy, optuna, numpy…) is imported by the functions that use it, since a shell that
completes a command's words waits for its file.
"""

import keyword
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

USAGE = 64
"""The exit status of a wrong command line."""
SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}


def make_group(package: str, commands: Sequence[str], **settings: Any) -> typer.Typer:
    """An app of the commands that lie in a package.

    The file ``add_domain.py`` holds the function ``add_domain`` of the command ``add-domain``. The
    file's docstring is the command's help, and its first line stands in the list. A package instead
    of a file holds a group, ``app``.
    """

    class Group(TyperGroup):
        def load(self, name: str) -> Any:
            return load_command(package, name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, command and self.load(args[0]), rest

    app = typer.Typer(cls=Group, invoke_without_command=True, **{**SETTINGS, **settings})
    app.callback()(show_help_alone)
    folder = Path(str(import_module(package).__file__)).parent
    for name in commands:
        app.command(name, help=_first_line(folder / file_of(name)))(_stand_in)
    return app


def show_help_alone(context: typer.Context) -> None:
    """Show a group's help where no command of it is named."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


def load_command(package: str, name: str) -> Any:
    """A command, or a group, with its words; its file is imported."""
    module = import_module(f"{package}.{file_of(name)}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(**SETTINGS)
        settings = getattr(module, "CONTEXT_SETTINGS", {})
        function = getattr(module, module.__name__.rpartition(".")[2])
        app.command(name, help=module.__doc__, context_settings=settings)(function)
    command = typer.main.get_command(app)
    command.name = name
    return command


def file_of(name: str) -> str:
    """The name of a command's file, without its ending, and of its function."""
    word = name.replace("-", "_")
    return f"{word}_" if keyword.iskeyword(word) else word


def _first_line(path: Path) -> str:
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip().strip('"')


def _stand_in() -> None:
    """Stands in the list for a command that is not imported."""
