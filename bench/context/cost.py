"""What the context costs a training run: CPU-seconds with and without, interleaved.

python -m bench.context.cost [--repeats 5]

The adapter of one domain on the embedded base, trained in a process of its own; with: sampled and
reported every second, with a courier that delivers to a server. The courier's and the server's
CPU-seconds count.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import machine
from bench.context.servers import served
from bench.result_files import keep_result
from bench.tiny import tiny_project
from meetara_build.context.places import URL

BIN = Path(sys.executable).parent
TRAIN = """
import contextlib, sys
from pathlib import Path
from unittest import mock
from meetara_build.engine import courier, job, stage_run
from meetara_build.graph import load
graph = load(Path.cwd())
step = graph.step("adapter", "nutrition")
with contextlib.ExitStack() as off:
    if sys.argv[1] == "without":
        off.enter_context(mock.patch.object(job, "_watch", lambda *_: contextlib.nullcontext({})))
        off.enter_context(mock.patch.object(courier, "start"))
        off.enter_context(mock.patch.object(stage_run, "Outbox", mock.MagicMock()))
    print(stage_run.run(graph, step, cold=True))
"""


def train(folder: Path, word: str, url: str) -> tuple[float, float]:
    """Train once; its CPU-seconds and wall seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, word],
        cwd=folder,
        env={**os.environ, URL: url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or "built" not in done.stdout:
        raise SystemExit(f"the training in {folder} failed:\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - started


def helpers() -> float:
    """CPU-seconds that servers and couriers have used so far."""
    found = 0.0
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "engine.courier" in line or "context serve" in line:
            with contextlib.suppress(psutil.Error):
                found += sum(process.cpu_times()[:2])
    return found


def forget(folder: Path) -> None:
    """Have the adapter be trained again."""
    for path in (folder / "artifacts" / "store" / "actions").rglob("*.json"):
        if '"adapter"' in path.read_text(encoding="utf-8"):
            path.unlink()
    (folder / "artifacts" / "nutrition" / "adapter" / "manifest.json").unlink(missing_ok=True)


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--repeats", type=int, default=5)
    words.add_argument("--epochs", type=int, default=20)
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_project(Path(scratch) / "project")
        path = folder / "conf" / "build.yaml"
        text = (
            path.read_text()
            .replace("epochs: 3", f"epochs: {given.epochs}")
            .replace("patience: 3", "patience: 1000")
        )
        path.write_text(text.replace("domains: all ", "domains: [nutrition] "))
        subprocess.run(
            [str(BIN / "meetara-build"), "build", "nutrition"],
            cwd=folder,
            check=False,
            capture_output=True,
        )
        took: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
        beside = []
        with served(folder) as url:
            for _ in range(given.repeats):
                for word, runs in took.items():
                    forget(folder)
                    before = helpers()
                    runs.append(train(folder, word, url))
                    if word == "with":
                        beside.append(helpers() - before)
    cpu = {word: statistics.median(run[0] for run in runs) for word, runs in took.items()}
    wall = {word: statistics.median(run[1] for run in runs) for word, runs in took.items()}
    print(
        f"a training of {wall['without']:.0f} s: {cpu['without']:.2f} CPU-seconds without, {cpu['with']:.2f} with "
        f"({cpu['with'] / cpu['without'] - 1:+.1%}; bound 1%); wall {wall['with'] / wall['without'] - 1:+.1%}; "
        f"courier and server beside it {statistics.median(beside):.2f} CPU-seconds"
    )
    found = {
        "seconds": round(wall["without"], 1),
        "cpu_share": round(cpu["with"] / cpu["without"] - 1, 4),
        "time_share": round(wall["with"] / wall["without"] - 1, 4),
        "beside_cpu_seconds": round(statistics.median(beside), 2),
    }
    keep_result("context_cost", found)


if __name__ == "__main__":
    main()
