"""Serve built domains to programs that speak OpenAI's protocol."""

from meetara_build.cli.options import AllowHost, Domains, Host, Port
from meetara_build.engine.planning import project_graph, select_domains


def serve(
    domains: Domains = None,
    host: Host = "127.0.0.1",
    port: Port = 8766,
    allow_host: AllowHost = None,
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
