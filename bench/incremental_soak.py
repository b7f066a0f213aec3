"""Hundreds of edits, builds and kills in any order; after each build, whether it gave what a clean
build gives.

python -m bench.incremental_soak [--steps 500] [--real 30] [--seed 1]

First with stand-ins for the stages, by the machine of tests/test_incremental.py, which says what
can happen and what is compared. Then with the real stages, through the command line, on a small
project, with SIGKILL to the whole process group. Ends with an error at the first difference, or
where a build did not do what its plan said.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bench import machine
from bench.result_files import keep_result
from meetara_build.graph import load
from meetara_build.plan import plan
from meetara_build.store import journal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from commands import processes, start, until
from fast_stages import Ran
from projects import edit, meetara, override, small_project, stop_warm
from test_incremental import CHEAP, Workplace, prepare

WHAT_HAPPENS = {"edit": 7, "build": 6, "kill": 6, "touch": 1, "delete": 2, "damage": 2, "forget": 1}
"""How often each thing happens to the project with the real stages, as shares."""
FORGOTTEN = (".meetara", "artifacts/storytelling", "artifacts/store", ".snakemake")
"""Folders that somebody deletes by hand: without the store nobody knows what was built before."""
KILLED_AFTER = (0.5, 3.0)
"""Seconds after which a build is killed: while it starts, or during any of its jobs."""


def fast(folder: Path, steps: int, number: int) -> Counter[str]:
    """The machine of the tests, time and again, until so many things were done."""
    running = prepare(folder)
    while _things(running.done) < steps:
        chosen = settings(
            max_examples=2,
            stateful_step_count=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        run_state_machine_as_test(seed(number)(running), settings=chosen)
        number += 1
    return running.done


def real(folder: Path, steps: int, number: int) -> Counter[str]:
    """So many things done to a small project whose builds are those of the command line."""
    place, chance = (
        RealWorkplace(folder / "work", _small(folder / "pristine"), build, {}),
        random.Random(number),
    )
    try:
        while _things(place.done) < steps or place.done["builds"] < steps // 4:
            [what] = chance.choices(list(WHAT_HAPPENS), list(WHAT_HAPPENS.values()))
            place.happens(what, chance)
        place.end()
    finally:
        for project in (place.project, folder / "work" / "clean"):
            stop_warm(project)
    return place.done


def _small(folder: Path) -> Path:
    """Two domains, one of which the base is made from; all stages together take some seconds."""
    small_project(folder, ["nutrition", "storytelling"])
    edit(folder / "conf" / "base" / "mini.yaml", "pretraining.domains", ["nutrition"])
    edit(folder / "conf" / "build.yaml", "evaluation.max_records", 3)
    for domain in ("nutrition", "storytelling"):
        override(folder, domain, {"training.max_steps": 4})
    return folder


class RealWorkplace(Workplace):
    """A project that is built, and whose builds are killed, through the command line."""

    def happens(self, what: str, chance: random.Random) -> None:
        """One thing, of those in ``WHAT_HAPPENS``; it is said first, so that a difference can be
        told from its past."""
        old_time = chance.random() < 0.5
        words: list[Any] = [chance.randrange(1000)]
        if what in ("edit", "kill"):
            name = chance.choice(list(CHEAP))
            words = [name, chance.randrange(len(CHEAP[name]) + 1)]
        elif what == "forget":
            words = [chance.choice(FORGOTTEN)]
        print(what, *words, "with an old time" * old_time, flush=True)
        if what in ("edit", "kill"):
            self.choose(*words, old_time=old_time)
        if what == "kill":
            self.interrupt(self.domains(chance.randrange(6)), chance.uniform(*KILLED_AFTER))
        elif what == "build":
            self.build(self.domains(words[0] % 6))
        elif what != "edit":
            getattr(self, what)(*words)

    def interrupt(self, domains: Sequence[str], seconds: float) -> None:
        """Begin a build, and kill all its processes after so many seconds."""
        running = start(self.project, "build", *domains, TMPDIR=_temporary(self.project))
        try:
            running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            self.done["kills"] += 1
            print(f"  killed after {seconds:.2f} s", flush=True)
        until(lambda: not processes(self.project), 30)


def build(project: Path, domains: Sequence[str]) -> Ran:
    """``meetara-build build DOMAINS``, and what it did by its records."""
    graph = load(project)
    announced = {item.step.name: item.action for item in plan(graph, domains).to_do()}
    before = len(list(journal.runs(graph.root)))
    done = meetara(project, "build", *domains, TMPDIR=_temporary(project))
    if done.returncode:
        sys.exit(f"the build failed ({domains}):\n{done.stdout}{done.stderr}")
    runs = list(journal.runs(graph.root))[before:]
    built = frozenset(f"{run.target}/{run.stage}" for run in runs if run.outcome == "built")
    return Ran(announced, built, frozenset(f"{run.target}/{run.stage}" for run in runs) - built)


def _temporary(project: Path) -> str:
    folder = project.parent / "tmp"
    folder.mkdir(exist_ok=True)
    return str(folder)


def _things(done: Mapping[str, int]) -> int:
    return sum(number for what, number in done.items() if what != "artifacts compared")


def main() -> None:
    """Both, and what was done."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument(
        "--steps", type=int, default=500, help="things done with stand-ins for the stages"
    )
    words.add_argument("--real", type=int, default=30, help="things done with the real stages")
    words.add_argument("--seed", type=int, default=1)
    given: Any = words.parse_args()
    print(machine.describe(), flush=True)
    things = {}
    for name, soak, steps in (("stand-ins", fast, given.steps), ("real stages", real, given.real)):
        folder, started = Path(tempfile.mkdtemp(prefix="soak-")), time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):
            done = soak(folder, steps, given.seed) if steps else Counter()
        shutil.rmtree(folder)
        things[name] = _things(done)
        counts = ", ".join(
            f"{number} {what}"
            for what, number in sorted(done.items())
            if what != "artifacts compared"
        )
        print(
            f"{name}: {things[name]} steps ({counts}) in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        print(
            f"{name}: {done['artifacts compared']} artifacts compared with a clean build's, 0 differences",
            flush=True,
        )
    # A difference ends the soak, so whoever comes here has seen none.
    done = {"stand_ins": things["stand-ins"], "real": things["real stages"], "differences": 0}
    keep_result("incremental_soak", done)


if __name__ == "__main__":
    main()
