"""Run one stage of one domain, as the rules do."""

import argparse
import sys

from meetara_build.config.overrides import read_overrides
from meetara_build.engine.job import explain
from meetara_build.errors import ConfigError
from meetara_build.graph import load
from meetara_build.graph.stages import NAMES
from meetara_build.hosting.processes import die_with_parent
from meetara_build.outside import show_block, show_line
from meetara_build.project import find_project

USAGE = 64
CONTEXT_SETTINGS = {"ignore_unknown_options": True, "help_option_names": []}
"""Of the command line as a whole, which passes all words on."""


def parser() -> argparse.ArgumentParser:
    """argparse rather than typer: it is ready in a tenth of the time."""
    words = argparse.ArgumentParser(
        prog="meetara-build stage", description=__doc__, exit_on_error=False
    )
    words.add_argument("stage", choices=NAMES, help="one of the stages")
    words.add_argument("target", help="a domain, base/NAME or bundle/NAME")
    words.add_argument(
        "--fingerprint", help="refuse to run where the configuration now gives another"
    )
    words.add_argument("--hardware", help="use another machine's file than build.yaml names")
    words.add_argument(
        "--overrides", help="what a build's command line sets, as the build hands it on"
    )
    words.add_argument(
        "--usd-per-hour", type=float, default=0.0, help="the machine's price, for the context"
    )
    words.add_argument(
        "--cold", action="store_true", help="work in this process instead of asking the warm one"
    )
    words.add_argument(
        "--parent",
        type=int,
        metavar="PID",
        help="end when this process, which started this one, ends",
    )
    words.add_argument("--debug", action="store_true", help="show tracebacks")
    return words


def stage(words: list[str]) -> int:
    """Run one stage; its exit status."""
    try:
        given = parser().parse_args(words)
    except argparse.ArgumentError as error:
        print(
            f"meetara-build stage: {show_line(error)}; see `meetara-build stage --help`",
            file=sys.stderr,
        )
        return USAGE
    except SystemExit as end:
        return USAGE if end.code else 0
    if given.parent:
        die_with_parent(given.parent)
    try:
        graph = load(find_project(), given.hardware, read_overrides(given.overrides))
        step = graph.step(given.stage, given.target)
        if given.fingerprint and given.fingerprint.partition("-")[0] != step.fingerprint:
            raise ConfigError(
                f"{step.name}: the configuration or the code changed during the build; build again"
            )
        from meetara_build.engine.stage_run import run

        done = run(graph, step, cold=given.cold, debug=given.debug, usd_per_hour=given.usd_per_hour)
        print(f"{step.name}: {done}")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if given.debug:
            raise
        if str(error):
            print(f"meetara-build: {show_block(explain(error))}", file=sys.stderr)
        return 1
    return 0
