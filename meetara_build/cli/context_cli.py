"""The words of `meetara-build context`."""

from pathlib import Path
from typing import Annotated

import typer

context = typer.Typer(
    help="What builds learn: one shared context.", no_args_is_help=True, rich_markup_mode=None
)
token = typer.Typer(
    help="Who may use the context's server.", no_args_is_help=True, rich_markup_mode=None
)
context.add_typer(token, name="token")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
File = Annotated[Path, typer.Argument(help="A file of JSON lines.")]
Name = Annotated[str, typer.Argument(help="Whose it is: letters, digits and _ . @ -.")]


@context.command("show")
def show(
    section: Annotated[
        str | None, typer.Argument(help="One of the four sections; all if none is named.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Of one domain only.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again whenever it changes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what builds used, how good the results are, what is at work, and what has worked."""
    from meetara_build.cli.contexts import show
    from meetara_build.engine.planning import project_graph

    show(project_graph(), section, domain, watch=watch, as_json=as_json)


@context.command("serve")
def serve(
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Over standard input and output, for one client.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; another than this machine's wants a token."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that clients know this machine by, a proxy's for example."),
    ] = None,
) -> None:
    """Serve the context over MCP, to assistants, agents and jobs on other machines."""
    from meetara_build.engine.planning import project_graph
    from meetara_build.mcp.server import serve

    serve(project_graph(), stdio=stdio, host=host, port=port, names=allow_host or [])


@context.command("export")
def export(file: File) -> None:
    """Write everything that was learnt to a file."""
    from meetara_build.cli.contexts import export_to
    from meetara_build.engine.planning import project_graph

    export_to(project_graph(), file)


@context.command("import")
def import_(file: File) -> None:
    """Take in what was learnt elsewhere."""
    from meetara_build.cli.contexts import import_from
    from meetara_build.engine.planning import project_graph

    import_from(project_graph(), file)


@token.command("create")
def create(
    name: Name,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may read, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a token, and show it this once."""
    from meetara_build.cli.contexts import create_token
    from meetara_build.engine.planning import project_graph

    create_token(project_graph(), name, read_only=read_only, as_json=as_json)


@token.command("list")
def list_(as_json: Json = False) -> None:
    """Name the tokens."""
    from meetara_build.cli.contexts import list_tokens
    from meetara_build.engine.planning import project_graph

    list_tokens(project_graph(), as_json=as_json)


@token.command("revoke")
def revoke(name: Name) -> None:
    """Have a token open nothing any more."""
    from meetara_build.cli.contexts import revoke_token
    from meetara_build.engine.planning import project_graph

    revoke_token(project_graph(), name)
