"""Show what a build would do, why, and what it would take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from meetara_build.cli.options import LOCAL, Json, Profile, Words
from meetara_build.cli.output import print_json
from meetara_build.cli.plan_text import print_plan, print_proposals
from meetara_build.config.overrides import split_words
from meetara_build.engine.planning import add_estimates, look, project_graph, select_targets
from meetara_build.errors import ConfigError
from meetara_build.graph import Graph
from meetara_build.outside import quote_command, show_line
from meetara_build.plan.content import content
from meetara_build.rounds.inbox import REJECTED, TAKEN, read_inbox
from meetara_build.store.manifest import write_text


def plan(
    words: Words = None,
    profile: Profile = LOCAL,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 where there is something to do.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Keep the plan in this file, for `apply`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a plan for domains, bundles and overrides, and keep it in a file if one is named.

    Raises:
        ConfigError: there is no such domain, bundle or profile, or the file cannot be written.
    """
    overrides = split_words(words or [])
    graph = project_graph(profile, overrides)
    named = select_targets(graph, overrides.domains)
    planned = add_estimates(graph, look(graph, named), profile)
    proposed = _list_proposals(graph, named)
    if as_json:
        shown = content(graph, planned.made, planned.estimates, planned.total, named, profile)
        print_json({**shown, "proposals": proposed})
    else:
        print_proposals(graph, proposed)
        print_plan(graph, planned.made, planned.total, profile, named)
    if out is not None:
        kept = content(
            graph, planned.made, planned.estimates, planned.total, named, profile, whole=True
        )
        try:
            write_text(out, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(
                f"{out}: cannot be written ({error.strerror}); name another file"
            ) from None
        if not as_json:
            written = show_line(out)
            print(
                f"Kept in {written}: `{quote_command('meetara-build', 'apply', out)}` does exactly "
                "this, or refuses if anything changes until then."
            )
    if detailed_exitcode and planned.made.to_do():
        raise typer.Exit(2)


def _list_proposals(graph: Graph, targets: Sequence[str]) -> list[dict[str, Any]]:
    """What the agents proposed last for these domains, and those of these bundles, and no one has
    answered."""
    chosen = set(graph.members(targets) or graph.domains)
    found = [
        one
        for one in read_inbox(graph.root)["verdicts"]
        if one["status"] not in (TAKEN, REJECTED, "refused")
    ]
    return [one for one in found if one["proposal"]["domain"] in chosen]
