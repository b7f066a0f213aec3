"""What it costs to find out that nothing, or little, has changed; beside Snakemake alone, GNU make
and DVC.

python -m bench.incremental [--domains 62] [--large 620] [--repeats 7] [--project FOLDER] [--dvc
PATH]
"""

import argparse
import functools
import itertools
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from bench import machine, stand_ins
from bench.build import BIN, snakemake
from bench.result_files import keep_result
from meetara_build.graph import Graph, load

DVC = "dvc==3.67.1"
RESOLVE = "from meetara_build.graph import load; from meetara_build.project import find_project; load(find_project())"
NOTHING = "Nothing to be done"

FIGURES = [
    ("no-op by Snakemake, against bare Snakemake", "no-op", "bare no-op", "at most 1.5"),
    ("plan, against bare snakemake -n", "plan", "bare -n", "at most 0.5"),
    (
        "plan right after an edit of one domain, against bare snakemake -n",
        "plan edited",
        "bare -n",
        "at most 0.5",
    ),
    (
        "plan again after that edit, against bare snakemake -n",
        "plan edited again",
        "bare -n",
        "at most 0.5",
    ),
    (
        "plan right after an edit of build.yaml, against bare snakemake -n",
        "plan edited build",
        "bare -n",
        "at most 2",
    ),
    ("resolve where nothing changed, against an empty Python", "resolve", "empty", "at most 5"),
    (
        "package answered from the store, against an empty Python",
        "stage package",
        "empty",
        "at most 10",
    ),
    (
        "dataset answered from the store, against an empty Python",
        "stage dataset",
        "empty",
        "at most 10",
    ),
    (
        "plan of the large project, against plan of the small one",
        "plan large",
        "plan",
        "at most 10",
    ),
    (
        "plan of the large project, against bare snakemake -n",
        "plan large",
        "bare -n large",
        "below 1",
    ),
]
"""What is measured, which command, in units of which other, and how much it may be."""

TOOLS = {
    "meetara-build": ("plan", "no-op"),
    "Snakemake alone": ("bare -n", "bare no-op"),
    "GNU make": ("make -n", "make"),
    "DVC": ("dvc status", "dvc repro"),
}
"""The commands with which each tool says what it would do, and finds nothing to do."""


class Command(NamedTuple):
    """What is timed, what goes before each run, and how it must end and what it must say if it did
    what is measured."""

    words: list[str]
    folder: Path
    status: int = 0
    says: str = ""
    before: Callable[[], None] | None = None


class Took(NamedTuple):
    """One run; CPU-seconds are of the command and all that it started and waited for."""

    seconds: float
    cpu_seconds: float


def timed(command: Command) -> Took:
    """Run a command once.

    Raises:
        SystemExit: it did something else than what is to be measured.
    """
    if command.before:
        command.before()
    before, started = _children_cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        command.words,
        cwd=command.folder,
        env=stand_ins.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    took = Took(time.perf_counter() - started, _children_cpu_seconds() - before)
    output = done.stdout + done.stderr
    if done.returncode != command.status or command.says not in output:
        raise SystemExit(
            f"{' '.join(command.words)} in {command.folder}: ended with {done.returncode}; expected were "
            f"{command.status} and the words '{command.says}':\n{output[-2000:]}"
        )
    return took


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(commands: Mapping[str, Command], repeats: int) -> dict[str, list[Took]]:
    """All commands in turn, again and again; the first round only warms up."""
    took: dict[str, list[Took]] = {name: [] for name in commands}
    for _ in range(repeats + 1):
        for name, command in commands.items():
            took[name].append(timed(command))
    return {name: runs[1:] for name, runs in took.items()}


def small_commands(graph: Graph, scratch: Path, dvc: str | None) -> dict[str, Command]:
    """Everything that is timed with the smaller number of domains; what is compared stands side by
    side."""
    project, domains = graph.project, graph.domains
    edited = stand_ins.aside(graph, scratch / "edited")
    timed(plan(edited))
    answered = stand_ins.aside_with_one_domain(graph, scratch / "answered")
    root = answered / graph.root.relative_to(project)
    bare, make = (
        stand_ins.for_snakemake(scratch / "bare", domains),
        stand_ins.for_make(scratch / "make", domains),
    )
    found = {
        "no-op": Command(snakemake(project, "all_domains"), project, says=NOTHING),
        "bare no-op": Command([str(BIN / "snakemake"), "--cores", "2"], bare, says=NOTHING),
        "plan": plan(project),
        "bare -n": dry_run(bare),
        "plan edited": plan(edited, 2)._replace(
            before=_edits(edited / "conf" / "domain" / f"{domains[0]}.yaml")
        ),
        "plan edited again": plan(edited, 2),
        "plan edited build": plan(edited, 2)._replace(
            before=_build_edits(edited / "conf" / "build.yaml")
        ),
        "empty": Command([sys.executable, "-c", "pass"], project),
        "resolve": Command([sys.executable, "-c", RESOLVE], project),
    }
    for stage in ("package", "dataset"):
        words = [sys.executable, "-m", "meetara_build", "stage", stage, domains[0], "--cold"]
        delete = functools.partial(shutil.rmtree, root / domains[0] / stage)
        found[f"stage {stage}"] = Command(words, answered, says="restored", before=delete)
    found["make -n"] = Command(["make", "-n"], make, says=NOTHING)
    found["make"] = Command(["make"], make, says=NOTHING)
    if dvc:
        folder = stand_ins.for_dvc(scratch / "dvc_graph", domains, dvc)
        found["dvc status"] = Command([dvc, "status"], folder, says="up to date")
        found["dvc repro"] = Command([dvc, "repro"], folder, says="up to date")
    return found


def large_commands(count: int, scratch: Path) -> dict[str, Command]:
    """What is timed with the larger number of domains."""
    graph = stand_ins.make_project(scratch / "large", count)
    bare = stand_ins.for_snakemake(scratch / "large_bare", graph.domains)
    return {"plan large": plan(graph.project), "bare -n large": dry_run(bare)}


def plan(project: Path, status: int = 0) -> Command:
    """``meetara-build plan``; status 0: nothing to do, 2: something."""
    return Command([str(BIN / "meetara-build"), "plan", "--detailed-exitcode"], project, status)


def dry_run(bare: Path) -> Command:
    """``snakemake -n`` where nothing is to be done."""
    return Command([str(BIN / "snakemake"), "-n"], bare, says=NOTHING)


def _edits(path: Path) -> Callable[[], None]:
    """Gives a domain another number of epochs at each call."""
    content, epochs = yaml.safe_load(path.read_text()), itertools.count(7)

    def edit() -> None:
        changed = {"domain": content, "training": {"epochs": next(epochs)}}
        text = yaml.safe_dump(changed, allow_unicode=True)
        path.write_text(f"# @package _global_\n{text}")

    return edit


def _build_edits(path: Path) -> Callable[[], None]:
    """Gives every domain another patience at each call."""
    text, patience = path.read_text(), itertools.count(4)

    def edit() -> None:
        path.write_text(text.replace("patience: 3", f"patience: {next(patience)}"))

    return edit


def find_dvc(given: str | None, scratch: Path) -> str | None:
    """The dvc command that was named, else of one installed for this alone; none where that cannot
    be.

    Raises:
        SystemExit: there is no such command.
    """
    if given:
        found = shutil.which(given)
        if found is None:
            raise SystemExit(
                f"--dvc {given}: no such command; name the path of one, or leave --dvc away"
            )
        return str(Path(found).absolute())
    folder = scratch / "dvc"
    try:
        stand_ins.quietly([sys.executable, "-m", "venv", str(folder)], scratch)
        stand_ins.quietly([str(folder / "bin" / "python"), "-m", "pip", "install", DVC], scratch)
    except SystemExit as error:
        print(f"Without DVC: {error}")
        return None
    return str(folder / "bin" / "dvc")


def median(took: Mapping[str, list[Took]], name: str) -> float:
    """Median seconds of a command."""
    return statistics.median(run.seconds for run in took[name])


def ratio(took: Mapping[str, list[Took]], ours: str, theirs: str, field: str = "seconds") -> float:
    """Median over the rounds of one command's time in units of another's."""
    pairs = zip(took[ours], took[theirs], strict=True)
    return float(
        statistics.median(getattr(one, field) / getattr(other, field) for one, other in pairs)
    )


def print_figures(
    took: Mapping[str, list[Took]], figures: Iterable[tuple[str, str, str, str]]
) -> None:
    """A line for each figure whose commands were timed."""
    for what, ours, theirs, bound in figures:
        if ours in took and theirs in took:
            print(
                f"{what}: {ratio(took, ours, theirs):.2f} times ({bound}): {median(took, ours):.3f} s and "
                f"{median(took, theirs):.3f} s; CPU-seconds {ratio(took, ours, theirs, 'cpu_seconds'):.2f} times"
            )


def figures(took: Mapping[str, list[Took]]) -> dict[str, dict[str, float]]:
    """What is kept: each ratio by its first command, and every command's median seconds."""
    ratios = {
        ours + (" of bare" if theirs == "bare -n large" else ""): round(
            ratio(took, ours, theirs), 2
        )
        for _, ours, theirs, _ in FIGURES
    }
    return {"ratios": ratios, "seconds": {name: round(median(took, name), 3) for name in took}}


def print_tools(took: Mapping[str, list[Took]]) -> None:
    """All tools side by side: seconds, and how many times as long meetara-build takes."""
    print(
        f"{'':17}{'says what to do':>16}{'ours / its':>12}{'does nothing':>15}{'ours / its':>12}  commands"
    )
    for tool, (dry, real) in TOOLS.items():
        if dry in took:
            print(
                f"{tool:17}{median(took, dry):14.3f} s{ratio(took, 'plan', dry):12.2f}{median(took, real):13.3f} s"
                f"{ratio(took, 'no-op', real):12.2f}  {dry}, {real}"
            )


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--domains", type=int, default=62, help="domains of the small project")
    words.add_argument(
        "--large", type=int, default=620, help="domains of the large project; 0: none"
    )
    words.add_argument("--repeats", type=int, default=7)
    words.add_argument(
        "--project",
        type=Path,
        help="a project built by Snakemake, instead of a small one of stand-ins",
    )
    words.add_argument("--dvc", help="a dvc command, instead of installing one")
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        dvc = find_dvc(given.dvc, scratch)
        if given.project:
            graph = load(given.project.resolve())
        else:
            graph = stand_ins.make_project(scratch / "small", given.domains)
            stand_ins.record(graph.project)
        commands = small_commands(graph, scratch, dvc)
        if given.large:
            commands |= large_commands(given.large, scratch)
        print(
            f"{given.project or 'small project'}: {len(graph.domains)} domains; large project: {given.large or 'none'}; "
            f"everything built; medians of {given.repeats} interleaved runs\nArtifacts of projects made here are "
            "stand-ins, small but for the base's and one domain's: what is measured is the bookkeeping.",
            flush=True,
        )
        took = measure(commands, given.repeats)
    print_figures(took, FIGURES)
    print_tools(took)
    if not given.project and given.large:
        about = {"domains": given.domains, "large": given.large, "repeats": given.repeats}
        keep_result("incremental", {**about, **figures(took)})


if __name__ == "__main__":
    main()
