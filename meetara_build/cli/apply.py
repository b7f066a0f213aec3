"""Build what a kept plan says; refuse if anything changed since."""

from pathlib import Path
from typing import Annotated

import typer

from meetara_build.cli.build import build
from meetara_build.cli.options import Cores, Json
from meetara_build.engine.planning import read_kept


def apply(
    file: Annotated[Path, typer.Argument(help="A plan that `plan --out` kept.")],
    cores: Cores = None,
    as_json: Json = False,
) -> None:
    """Build exactly what a plan said.

    Raises:
        ConfigError: the file is no plan of this project, or what it was made from has changed.
        BuildError: a job failed; what is finished is kept.
        HeldBackError: models do not reach what their domains ask.
    """
    kept = read_kept(file)
    build([*kept.overrides.domains, *kept.overrides.words], kept.profile, cores, as_json)
