"""The words of the commands about agents."""

from typing import Annotated

import typer

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Profile = Annotated[
    str, typer.Option(help="A Snakemake profile below conf/profile/: where the jobs run.")
]
Domains = Annotated[list[str] | None, typer.Argument(help="Domains; all of them if none is named.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(help="Ids, or their beginnings, as `propose` and `plan` show them."),
]


@commands.command("agents")
def agents(as_json: Json = False) -> None:
    """List the agents, what each may do, and how its proposals fared."""
    from meetara_build.cli.advising import show_agents

    show_agents(as_json=as_json)


@commands.command("propose")
def propose(domains: Domains = None, profile: Profile = "local", as_json: Json = False) -> None:
    """Ask the agents what to change, and show it; what policy accepts is taken at once."""
    from meetara_build.cli.advising import propose

    propose(domains or [], profile, as_json=as_json)


@commands.command("accept")
def accept(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All that won.")] = False,
) -> None:
    """Take proposals: each becomes an entry in conf/overlay/DOMAIN.yaml."""
    from meetara_build.cli.advising import accept

    accept(ids or [], everything=everything)


@commands.command("reject")
def reject(
    ids: Annotated[list[str], typer.Argument(help="Ids, or their beginnings.")],
    reason: Annotated[str, typer.Option(help="Why, for the agents and for people.")] = "",
) -> None:
    """Refuse proposals; they are not made again."""
    from meetara_build.cli.advising import reject

    reject(ids, reason)


@commands.command("run")
def run(
    domains: Domains = None,
    rounds: Annotated[int, typer.Option(min=1, help="At most so many rounds.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Begin no round after so long.")
    ] = None,
    profile: Profile = "local",
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores to use; the profile's if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build, ask the agents, take what policy accepts, and build again, until nothing promises more than it costs."""
    from meetara_build.cli.rounds import run

    run(domains or [], profile, rounds=rounds, minutes=minutes, cores=cores, as_json=as_json)
