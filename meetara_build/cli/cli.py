"""The command line. Each command is a few words about its options; what it does is in a module of its own."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meetara_build.cli.agents_cli import commands as agents
from meetara_build.cli.context_cli import context
from meetara_build.engine.job import explain as said
from meetara_build.outside import show_block

USAGE = 64
STOPPED = 130
UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="meetara-build",
    help="A build tool like make, for models: datasets to proven GGUF files.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Look at data sets.", no_args_is_help=True, rich_markup_mode=None)
profiles = typer.Typer(help="Snakemake profiles.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
app.add_typer(profiles, name="profiles")
app.add_typer(context, name="context")
app.add_typer(agents)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Profile = Annotated[
    str, typer.Option(help="A Snakemake profile below conf/profile/: where the jobs run.")
]
Domains = Annotated[list[str] | None, typer.Argument(help="Domains; all of them if none is named.")]
Domain = Annotated[str, typer.Argument(help="A domain.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DOMAIN|KEY=VALUE",
        help="Domains, all of them if none is named; and what is to be other for them, like training.epochs=4.",
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="What is to be other, like training.epochs=4 or hardware=a10.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"meetara-build {version('meetara-build')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Make a new project: configuration, domains, rules."""
    from meetara_build.cli.projects import init

    init(folder)


@app.command()
def setup() -> None:
    """Install llama.cpp and fetch the packages that bases are files of: once, after pip; again where a message says so."""
    from meetara_build.cli.setting_up import set_up

    set_up()


@app.command("add-domain")
def add_domain(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")],
    source: Annotated[
        Path,
        typer.Option("--from", help="A JSONL, CSV or Parquet file, or a saved data set's folder."),
    ],
    description: Annotated[
        str | None, typer.Option(help="What the domain answers, for the model card.")
    ] = None,
    category: Annotated[str, typer.Option(help="Groups domains.")] = "own",
    prompt: Annotated[
        str | None, typer.Option(help="The column of the questions, if the guess is wrong.")
    ] = None,
    response: Annotated[
        str | None, typer.Option(help="The column of the answers, if the guess is wrong.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="jsonl, csv or parquet, where the file's name does not say it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a domain from a data file, its columns guessed, and show what is learnt of it."""
    from meetara_build.cli.projects import add_domain

    columns = {
        field: column for field, column in (("prompt", prompt), ("response", response)) if column
    }
    add_domain(
        name,
        source,
        description=description,
        category=category,
        columns=columns,
        form=form,
        as_json=as_json,
    )


@app.command("config")
def show_config(
    domain: Domain, overrides: Override = None, profile: Profile = "local", as_json: Json = False
) -> None:
    """Show a domain's whole configuration, with the file and line that decided each value."""
    from meetara_build.cli.config import show_config

    show_config(domain, overrides or [], profile, as_json=as_json)


@app.command()
def plan(
    words: Words = None,
    profile: Profile = "local",
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 where there is something to do.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Keep the plan in this file, for `apply`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a build would do, why, and what it would take."""
    from meetara_build.cli.planning import show_plan

    something = show_plan(words or [], profile, as_json=as_json, out=out)
    if detailed_exitcode and something:
        raise typer.Exit(2)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A plan that `plan --out` kept.")],
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores to use; the profile's if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build what a kept plan says, or refuse if anything has changed since."""
    from meetara_build.cli.building import build
    from meetara_build.engine.planning import read_kept

    kept = read_kept(file)
    build(
        [*kept.overrides.domains, *kept.overrides.words], kept.profile, cores=cores, as_json=as_json
    )


@app.command()
def build(
    words: Words = None,
    profile: Profile = "local",
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores to use; the profile's if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build what is not up to date."""
    from meetara_build.cli.building import build

    build(words or [], profile, cores=cores, as_json=as_json)


@app.command()
def status(domains: Domains = None, profile: Profile = "local", as_json: Json = False) -> None:
    """Show which domains are fresh, stale, failed, running or not built."""
    from meetara_build.cli.status import show_status

    show_status(domains or [], profile, as_json=as_json)


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(help="DOMAIN, DOMAIN/STAGE, base/NAME, or a file below the root.")
    ],
    profile: Profile = "local",
    as_json: Json = False,
) -> None:
    """Say what an artifact was made from, and what would change it."""
    from meetara_build.cli.explaining import explain

    explain(what, profile, as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True})
def diff(
    one: Annotated[
        str | None,
        typer.Argument(help="A build's number, or -1 for the last; without it, list them."),
    ] = None,
    other: Annotated[str | None, typer.Argument(help="Another; the last if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two builds' recipes and figures."""
    from meetara_build.cli.comparing import diff

    diff(one, other, as_json=as_json)


@app.command()
def gc(
    max_size: Annotated[str | None, typer.Option(help="Keep at most this much, like 10GB.")] = None,
    max_age: Annotated[
        str | None, typer.Option(help="Keep what was used within this time, like 30d.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be forgotten.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let the store forget results that are neither current nor pinned, oldest first."""
    from meetara_build.cli.storing import gc

    gc(max_size, max_age, dry_run=dry_run, as_json=as_json)


@app.command()
def chat(
    domain: Domain,
    question: Annotated[
        str | None, typer.Argument(help="Ask this and end; without it, talk.")
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Which GGUF file; the smallest if not given.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 200,
    as_json: Json = False,
) -> None:
    """Talk to a domain's model through llama.cpp."""
    from meetara_build.cli.talking import chat

    chat(domain, question, quant=quant, tokens=tokens, as_json=as_json)


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="DOMAIN or DOMAIN:QUANT or base:NAME.")],
    other: Annotated[str, typer.Argument(help="DOMAIN or DOMAIN:QUANT or base:NAME.")],
    questions: Annotated[
        list[str] | None, typer.Option("--ask", help="A question; held-out ones if not given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many held-out questions.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 80,
    as_json: Json = False,
) -> None:
    """Put the same questions to two models."""
    from meetara_build.cli.talking import compare

    compare(one, other, questions or [], count=count, tokens=tokens, as_json=as_json)


@app.command()
def tune(
    domain: Domain,
    overrides: Override = None,
    trials: Annotated[
        int,
        typer.Option(min=1, help="How many settings to have tried in all, earlier ones counted."),
    ] = 30,
    workers: Annotated[
        int, typer.Option(min=1, help="How many processes try settings side by side.")
    ] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Begin no trial after so long.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Decide for the best, if it is better by more than noise."),
    ] = False,
    profile: Profile = "local",
    as_json: Json = False,
) -> None:
    """Search a domain's best settings among those of `tuning.space`; the same command goes on where it stopped."""
    from meetara_build.cli.tuning import tune

    tune(
        domain,
        profile,
        overrides or [],
        trials=trials,
        workers=workers,
        seconds=seconds,
        accept=accept,
        as_json=as_json,
    )


@data.command("check")
def data_check(domains: Domains = None, as_json: Json = False) -> None:
    """Read the sources of domains: list every bad record, what is left out and why, and what a build would refuse."""
    from meetara_build.cli.checking import check_data

    if not check_data(domains or [], as_json=as_json):
        raise typer.Exit(1)


@app.command()
def verify(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Domains, or folders that hold SHA256SUMS; all domains if none is named."
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Build again what is damaged.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            help="A Snakemake profile to repair with; that of the machine it was built for if not given."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove files against the checksums they were built with."""
    from meetara_build.cli.checking import verify

    if not verify(what or [], profile, repair=repair, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation, and say how to mend it."""
    from meetara_build.cli.checking import doctor

    if not doctor(as_json=as_json):
        raise typer.Exit(1)


@profiles.command("install")
def profiles_install() -> None:
    """Link conf/profile/* to where `snakemake --profile NAME` looks."""
    from meetara_build.cli.projects import install_profiles

    install_profiles()


@app.command("stage", context_settings={"ignore_unknown_options": True}, add_help_option=False)
def stage(
    words: Annotated[
        list[str], typer.Argument(help="STAGE TARGET; see `meetara-build stage --help`.")
    ],
) -> None:
    """Run one stage of one domain, as the rules do."""
    from meetara_build.cli.stage import main as run

    raise typer.Exit(run(words))


def main() -> int:
    """Run the command line; its exit status: 0, 1 for any error, 2 only where `plan --detailed-exitcode` says so, 64 for a
    wrong command line, 130 after Ctrl-C."""
    status = _status()
    if status == STOPPED:
        print(
            "\nstopped; what is finished is kept, and the same command goes on from there",
            file=sys.stderr,
        )
    return status


def _status() -> int:
    debug = "--debug" in sys.argv
    try:
        outcome = app(prog_name="meetara-build", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except UsageError as error:
        if (error.ctx and not sys.argv[1:]) or type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help(), file=sys.stderr)
            return USAGE
        where = error.ctx.command_path if error.ctx else "meetara-build"
        print(
            f"{where}: {show_block(error.format_message())}\nSee `{where} --help`.", file=sys.stderr
        )
        return USAGE
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if debug:
            raise
        print(f"meetara-build: {show_block(said(error))}", file=sys.stderr)
        return 1
