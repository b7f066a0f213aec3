"""Take in what was learnt elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from meetara_build.cli.output import out
from meetara_build.context.delivery import AT_ONCE
from meetara_build.context.places import open_context
from meetara_build.engine.planning import project_graph
from meetara_build.errors import ConfigError, ReportError
from meetara_build.outside import parse_json, read_file


def import_(
    file: Annotated[Path, typer.Argument(help="What `context export` wrote.")],
) -> None:
    """Take in what was exported; what is there already counts once.

    Raises:
        ConfigError: the file cannot be read, or a line is no report; then nothing is taken in.
    """
    graph = project_graph()
    reports = list(_read(file))
    context = open_context(graph.root, graph.context)
    new = sum(
        len(context.deliver(reports[start : start + AT_ONCE]))
        for start in range(0, len(reports), AT_ONCE)
    )
    context.close()
    out.print(f"{new} of {len(reports)} reports were new")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    from meetara_build.context.reports import check_reports

    try:
        lines = read_file(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(
            f"{path}: cannot be read ({reason}); name what `meetara-build context export` wrote"
        ) from None
    for number, line in enumerate(lines, 1):
        try:
            report = parse_json(line)
            check_reports([report])
        except (ValueError, AttributeError):
            raise ConfigError(
                f"{path}:{number}: no report; name what `meetara-build context export` wrote"
            ) from None
        except ReportError as error:
            raise ConfigError(f"{path}:{number}: {str(error).removeprefix('report 1 ')}") from None
        yield report
