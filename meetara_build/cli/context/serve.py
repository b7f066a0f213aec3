"""Serve it over MCP, to assistants, agents and jobs elsewhere."""

from typing import Annotated

import typer

from meetara_build.engine.planning import project_graph


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
    """Serve the context until it is stopped."""
    from meetara_build.mcp.server import serve

    serve(project_graph(), stdio=stdio, host=host, port=port, names=allow_host or [])
