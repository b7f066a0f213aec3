"""Arguments and options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

from meetara_build.cli import completion

LOCAL = "local"
"""The profile that is used where none is named."""


def make_path_full(profile: str | None) -> str | None:
    """A path means the same from wherever a kept plan is applied; a name stays one."""
    return str(Path(profile).resolve()) if profile and os.sep in profile else profile


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Profile = Annotated[
    str,
    typer.Option(
        metavar="NAME|PATH",
        help="Where the jobs run: a profile below conf/profile/, or the path of another.",
        autocompletion=completion.complete_profiles,
        callback=make_path_full,
    ),
]
Cores = Annotated[int | None, typer.Option(min=1, help="Cores to use; the profile's if not given.")]
Domains = Annotated[
    list[str] | None,
    typer.Argument(
        help="Domains; all of them if none is named.",
        autocompletion=completion.complete_domains,
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DOMAIN|bundle/NAME",
        help="Domains and bundles; all domains if none is named.",
        autocompletion=completion.complete_built,
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to listen on; another than this machine's wants a token.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Another name that clients know this machine by, a proxy's for example."),
]
Domain = Annotated[
    str, typer.Argument(help="A domain.", autocompletion=completion.complete_domains)
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DOMAIN|bundle/NAME|KEY=VALUE",
        help="Domains and bundles, all domains if none is named; and what is to be other for domains, like training.epochs=4.",
        autocompletion=completion.complete_words,
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="What is to be other, like training.epochs=4 or hardware=a10.",
        autocompletion=completion.complete_overrides,
    ),
]
