"""Serve built domains to programs that speak OpenAI's protocol."""

from typing import Annotated

import typer

from meetara_build.cli.options import Domains
from meetara_build.engine.planning import project_graph, select_domains


def serve(
    domains: Domains = None,
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; another than this machine's wants a token."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8766,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that clients know this machine by, a proxy's for example."),
    ] = None,
) -> None:
    """Serve domains over one base in memory, an adapter a request, until it is stopped.

    Raises:
        ArtifactError: none of them is built, or all are held back.
        ContextError: nobody has a token for an address that others reach, or it is taken.
    """
    graph = project_graph()
    named = select_domains(graph, domains or [])
    from meetara_build.serving.server import serve

    serve(graph, named, host=host, port=port, names=allow_host or [])
