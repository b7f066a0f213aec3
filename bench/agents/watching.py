"""What it costs a training to be watched by an agent that does nothing.

python -m bench.agents.watching [--folder FOLDER] [--rounds 5]

The same training of a small adapter several times; how long each step took, and how long of it the
training waited for the agent's answer. A step's times are the shortest of all rounds, so that what
else the machine does counts little. The agent is loaded beside the model.
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
from meetara_build.hosting.observers import Observers
from meetara_build.training.settings import Progress

BOUND = 0.01
DOMAIN = "nutrition"
TRIVIAL = "from meetara_build.agents import hookimpl\n\n\n@hookimpl\ndef observe(progress):\n    return None\n"


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep the project with its base here")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(project(options.folder or Path(scratch), [DOMAIN]), DOMAIN)
        plugin = Path(scratch) / "trivial.py"
        plugin.write_text(TRIVIAL)
        rounds = [_steps(trainer, plugin) for _ in range(options.rounds)]
    _print(
        [min(step) for step in zip(*(steps for steps, _ in rounds), strict=True)],
        [min(step) for step in zip(*(waits for _, waits in rounds), strict=True)],
    )


def _steps(trainer: Trainer, plugin: Path) -> tuple[list[float], list[float]]:
    """Seconds of each step but the first, and those of them that the agent took."""
    ended, waits = [], []
    observers = Observers({"trivial": plugin}, plugin.parent, _lost)

    def timed(progress: Progress) -> None:
        asked = time.perf_counter()
        observers(progress)
        ended.append(time.perf_counter())
        waits.append(ended[-1] - asked)

    try:
        trainer.train(trainer.encoded(trainer.training), {}, 17, timed)
    finally:
        observers.close()
    return [after - before for before, after in pairwise(ended)], waits[1:]


def _lost(name: str, fault: str) -> None:
    raise SystemExit(f"{name}: {fault}")


def _print(steps: list[float], waits: list[float]) -> None:
    share = sum(waits) / sum(steps)
    print(
        f"{len(steps)} steps of {1000 * statistics.median(steps):.1f} ms; the agent's answer {1000 * statistics.median(waits):.2f} ms"
    )
    print(
        f"share of the time: {share:.2%} (bound {BOUND:.0%}) {'ok' if share <= BOUND else 'ABOVE'}"
    )


if __name__ == "__main__":
    main()
