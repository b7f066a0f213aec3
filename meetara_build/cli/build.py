"""Build what is not up to date."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.cli.options import LOCAL, Cores, Json, Profile, Words
from meetara_build.cli.output import amount, err, out, print_json, progress, table
from meetara_build.config.overrides import split_words
from meetara_build.engine.build_lock import at_work
from meetara_build.engine.cleanup import sweep
from meetara_build.engine.planning import look, project_graph, select_targets
from meetara_build.engine.snakemake import build as run_snakemake
from meetara_build.errors import ArtifactError, BuildError, HeldBackError
from meetara_build.graph import Graph
from meetara_build.outside import parse_json
from meetara_build.plan.data_losses import DataLosses, data_losses
from meetara_build.plan.held_back import HeldBack, list_held_back
from meetara_build.setup.check import check_llama
from meetara_build.store import journal

TOLD = ("base", "adapter", "package", "bundle")
"""Stages that are worth a line where no bar can be drawn: what takes long, and the end of a domain.
`status` has the others."""

TOLD_WHOLE = 3
"""Of so many domains that are held back at most, all reasons and answers are printed."""


class Built(NamedTuple):
    """A build that has ended: its domains, those of its bundles among them, and its bundles; the
    stage runs it took, seconds, what large parts its data sets lost, and which domains are held
    back."""

    graph: Graph
    domains: list[str]
    bundles: list[str]
    runs: list[journal.Run]
    seconds: float
    losses: list[DataLosses]
    held_back: list[HeldBack]

    def refuse_held_back(self) -> None:
        """End with an error where a model is held back.

        Raises:
            HeldBackError: models do not reach what their domains ask.
        """
        if self.held_back:
            found, every = len(self.held_back), amount(len(self.domains), "domain")
            told = [
                one.text() if found <= TOLD_WHOLE else f"{one.domain}: {one.line()}"
                for one in self.held_back
            ]
            raise HeldBackError(
                "\n".join(told)
                + f"\n{found} of {every} {'is' if found == 1 else 'are'} held back, and the same is "
                "not judged again; DOMAIN/package/README.md has the answers that caused it, and what "
                "would help"
            )


def build(
    words: Words = None, profile: Profile = LOCAL, cores: Cores = None, as_json: Json = False
) -> None:
    """Build domains and bundles, with what overrides among the words set, and show what came of it.

    Raises:
        BuildError: a job failed; what is finished is kept.
        HeldBackError: models do not reach what their domains ask.
    """
    done = build_domains(words or [], profile, cores=cores, quiet=as_json)
    figures = {domain: _figures(done.graph, domain) for domain in done.domains}
    if as_json:
        print_json(
            {
                "seconds": done.seconds,
                "runs": [run._asdict() for run in done.runs],
                "domains": figures,
                "bundles": {
                    bundle: str(show_place(done.graph.root / bundle)) for bundle in done.bundles
                },
                "data_losses": [lost.as_json() for lost in done.losses],
                "held_back": [one._asdict() for one in done.held_back],
            }
        )
        done.refuse_held_back()
        return
    if len(figures) <= 12:
        print_figures(figures)
    for bundle in done.bundles:
        out.print(f"{bundle}: {show_place(done.graph.root / bundle)}")
    for lost in done.losses:
        out.print(lost.text())
    out.print(
        f"{amount(len(figures), 'domain')} up to date: {amount(len(done.runs), 'stage run')} in "
        f"{done.seconds:.0f} s"
    )
    done.refuse_held_back()


def build_domains(words: Sequence[str], profile: str, *, cores: int | None, quiet: bool) -> Built:
    """Build domains and bundles with Snakemake and show how it goes.

    Raises:
        BuildError: a job failed; what is finished is kept.
    """
    check_llama()
    os.environ[journal.BUILD] = journal.new_build()
    overrides = split_words(words)
    graph = project_graph(profile, overrides)
    targets = select_targets(graph, overrides.domains)
    made = look(graph, targets)
    started = time.monotonic()
    done: list[journal.Run] = []
    arguments = ["--cores", str(cores)] if cores else []
    with progress() as bar:
        task = bar.add_task("starting", total=len(made.to_do()))

        def listen(run: journal.Run) -> None:
            done.append(run)
            bar.update(task, advance=1, description=f"{run.target}/{run.stage} {run.ended}")
            if not quiet and not err.is_terminal and run.stage in TOLD:
                out.print(f"{run.target}/{run.stage} {run.ended} in {run.seconds:.1f} s")

        with at_work(graph.project, [item.step.name for item in made.to_do()]):
            sweep(graph, made, targets)
            if made.to_do():
                run_snakemake(graph, made, profile, listen, arguments)
    after = look(graph, targets)
    left = after.to_do()
    if left:
        raise BuildError(
            f"{len(left)} steps are still not up to date, {left[0].step.name} first; see "
            "`meetara-build plan`"
        )
    return Built(
        graph,
        graph.members(targets) or graph.domains,
        [target for target in targets if target in graph.bundles],
        done,
        time.monotonic() - started,
        data_losses(graph, after),
        list_held_back(after),
    )


def print_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each domain: held-out loss of the base and of its model."""
    shown = table("domain", ">base loss", ">loss", ">better by", "files")
    for domain, found in figures.items():
        gain = f"{1 - found['loss'] / found['base_loss']:.1%}"
        shown.add_row(
            domain, f"{found['base_loss']:.3f}", f"{found['loss']:.3f}", gain, found["folder"]
        )
    out.print(shown)


def _figures(graph: Graph, domain: str) -> dict[str, Any]:
    path = graph.root / graph.step("evaluate", domain).place.folder / "evaluation.json"
    try:
        evaluation = parse_json(path.read_text(encoding="utf-8"))
        losses = {
            "base_loss": evaluation["base"]["loss"],
            "loss": next(iter(evaluation["variants"].values()))["loss"],
        }
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise ArtifactError(
            f"{path}: missing or damaged; run `meetara-build verify --repair {domain}`"
        ) from None
    folder = graph.root / graph.step("gguf", domain).place.folder
    return {**losses, "folder": str(show_place(folder))}


def show_place(folder: Path) -> Path:
    """A folder as seen from here, where it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
