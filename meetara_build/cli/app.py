"""The command line: its commands, each in the file of its name, and how it ends."""

import os
import sys
from typing import Annotated

import typer

from meetara_build.cli.group import USAGE, make_group, show_help_alone
from meetara_build.outside import show_block

COMMANDS = [
    "init",
    "setup",
    "add-domain",
    "config",
    "data",
    "plan",
    "apply",
    "build",
    "run",
    "status",
    "explain",
    "diff",
    "gc",
    "verify",
    "doctor",
    "chat",
    "compare",
    "serve",
    "tune",
    "agents",
    "propose",
    "accept",
    "reject",
    "context",
    "stage",
]
"""In the order in which a person is shown them."""
STOPPED = 130

app = make_group(
    "meetara_build.cli",
    COMMANDS,
    name="meetara-build",
    help="A build tool like make, for models: datasets to proven GGUF files.",
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"meetara-build {version('meetara-build')}")
        raise typer.Exit


@app.callback()
def set_options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Take the options before the command."""
    show_help_alone(context)


def main() -> int:
    """Run the command line; its exit status: 0, 1 for any error, 2 only where
    `plan --detailed-exitcode` says so, 64 for a wrong command line, 130 after Ctrl-C."""
    status = _run()
    if status == STOPPED:
        print(
            "\nstopped; what is finished is kept, and the same command goes on from there",
            file=sys.stderr,
        )
    return status


def _run() -> int:
    try:
        outcome = app(prog_name="meetara-build", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        where = context.command_path if context else "meetara-build"
        said = show_block(error.format_message())
        print(f"{where}: {said}\nSee `{where} --help`.", file=sys.stderr)
        return USAGE
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        from meetara_build.engine.job import explain

        print(f"meetara-build: {show_block(explain(error))}", file=sys.stderr)
        return 1
