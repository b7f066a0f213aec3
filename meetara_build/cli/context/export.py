"""Write everything that was learnt to a file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from meetara_build.cli.output import out
from meetara_build.context.delivery import Delivery
from meetara_build.context.places import open_local
from meetara_build.engine.planning import project_graph
from meetara_build.errors import ConfigError
from meetara_build.outside import quote_command
from meetara_build.store.manifest import write_text


def export(
    file: Annotated[Path, typer.Argument(help="Where to write lines of JSON.")],
) -> None:
    """Write every report that is kept, one line of JSON each.

    Raises:
        ContextError: the context is behind a server, or cannot be read.
        ConfigError: the file cannot be written.
    """
    graph = project_graph()
    context = open_local(graph.root, graph.context)
    Delivery(graph.root, context).once()
    lines = [json.dumps(report, ensure_ascii=False) for report in context.store.export()]
    context.close()
    try:
        write_text(file, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror}); name another file"
        ) from None
    again = quote_command("meetara-build", "context", "import", file)
    out.print(f"{len(lines)} reports in {file}; take them in elsewhere with `{again}`")
