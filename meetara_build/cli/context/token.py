"""Say who may use the context's server."""

import time
from typing import Annotated

import typer

from meetara_build.cli.group import SETTINGS, show_help_alone
from meetara_build.cli.options import Json
from meetara_build.cli.output import err, out, print_json, table
from meetara_build.context.places import open_local
from meetara_build.engine.planning import project_graph

Name = Annotated[str, typer.Argument(help="Whose it is: letters, digits and _ . @ -.")]

app = typer.Typer(help=__doc__, invoke_without_command=True, **SETTINGS)
app.callback()(show_help_alone)


@app.command()
def create(
    name: Name,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may read, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a token and show it, this once."""
    from meetara_build.context import tokens

    graph = project_graph()
    context = open_local(graph.root, graph.context)
    token = tokens.create(context.store, name, writes=not read_only)
    context.close()
    if as_json:
        print_json({"name": name, "token": token, "writes": not read_only})
        return
    print(token)
    err.print(  # on standard output the token alone, as `TOKEN=$(…)` wants it
        f"The token of '{name}', to {'read' if read_only else 'read and write'}; it is not kept, "
        "so note it now. A server that runs without tokens has to be started again.",
        style="dim",
    )


@app.command("list")
def list_tokens(as_json: Json = False) -> None:
    """Name the tokens."""
    from meetara_build.context import tokens

    graph = project_graph()
    context = open_local(graph.root, graph.context)
    found = tokens.list_tokens(context.store)
    context.close()
    if as_json:
        print_json(found)
        return
    shown = table("name", "may", "made")
    for row in found:
        shown.add_row(
            row["name"],
            "read, write" if row["writes"] else "read",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"])),
        )
    out.print(
        shown if found else "no tokens; make one with `meetara-build context token create NAME`"
    )


@app.command()
def revoke(name: Name) -> None:
    """Have a token open nothing any more."""
    from meetara_build.context import tokens

    graph = project_graph()
    context = open_local(graph.root, graph.context)
    tokens.revoke(context.store, name)
    context.close()
    out.print(f"the token of '{name}' opens nothing any more")
