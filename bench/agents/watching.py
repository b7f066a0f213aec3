"""What it costs a training to be watched: by nobody, and by one agent that does nothing.

python -m bench.agents.watching [--folder FOLDER] [--rounds 5]

The same training of a small adapter, each way in turn. A step's time is the shortest of all rounds, so that what else the machine does
does not count; the agent's own process counts, since the training waits for its answer.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path

from bench import machine
from bench.agents.short_trainings import Trainer, project
from meetara_build.agents.watching import Observers
from meetara_build.training.settings import Observer, Progress

BOUND = 0.01
DOMAIN = "nutrition"
TRIVIAL = "from meetara_build.agents import hookimpl\n\n\n@hookimpl\ndef observe(progress):\n    return None\n"


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the project with its base here")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(project(options.folder or Path(scratch), [DOMAIN]), DOMAIN)
        plugin = Path(scratch) / "trivial.py"
        plugin.write_text(TRIVIAL)
        alone, watched = [], []
        for _ in range(options.rounds):
            alone.append(_steps(trainer, lambda progress: None))
            observers = Observers({"trivial": plugin}, Path(scratch), _lost)
            try:
                watched.append(_steps(trainer, observers))
            finally:
                observers.close()
    _print(alone, watched)


def _steps(trainer: Trainer, observe: Observer) -> list[float]:
    """Seconds from each step to the next."""
    times: list[float] = []

    def timed(progress: Progress) -> None:
        observe(progress)
        times.append(time.perf_counter())

    trainer.train(trainer.encoded(trainer.training), {}, 17, timed)
    return [after - before for before, after in pairwise(times)]


def _lost(name: str, fault: str) -> None:
    raise SystemExit(f"{name}: {fault}")


def _print(alone: list[list[float]], watched: list[list[float]]) -> None:
    without, with_one = ([min(step) for step in zip(*rounds, strict=True)] for rounds in (alone, watched))
    share = sum(with_one) / sum(without) - 1
    print(f"{'':24}{'one step, ms':>14}{'all steps, s':>14}")
    for name, steps in (("watched by nobody", without), ("watched by one agent", with_one)):
        print(f"{name:24}{1000 * statistics.median(steps):14.2f}{sum(steps):14.2f}")
    print(f"share of the time: {share:+.2%} (bound {BOUND:.0%}) {'ok' if share <= BOUND else 'ABOVE'}")


if __name__ == "__main__":
    main()
