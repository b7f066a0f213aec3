"""Serve it over MCP, to assistants, agents and jobs elsewhere."""

from typing import Annotated

import typer

from meetara_build.cli.options import AllowHost, Host, Port
from meetara_build.engine.planning import project_graph


def serve(
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Over standard input and output, for one client.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    allow_host: AllowHost = None,
) -> None:
    """Serve the context until it is stopped."""
    from meetara_build.mcp.server import serve

    serve(project_graph(), stdio=stdio, host=host, port=port, names=allow_host or [])
