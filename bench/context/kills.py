"""The context's server killed again and again during builds that report to it: what they make, and
whether all arrives once.

python -m bench.context.kills [--kills 50] [--seed 1]

Builds of two small domains report to a server, which gets SIGKILL at random moments and comes back
after a random pause. What jobs leave in the outbox is noted as they leave it; at the end the server
must have each of these reports, once, and the artifacts must be those of a build that nothing
disturbed.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import machine
from bench.context.servers import project, served
from bench.kills import digests, prepare
from bench.result_files import keep_result
from meetara_build.context.local import Local
from meetara_build.context.outbox import folder as outbox
from meetara_build.context.places import URL
from meetara_build.context.store import Retention

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from commands import until

PORT = 8791
NOTED_EVERY = 0.005
DELIVERED_WITHIN = 120.0


class Notes:
    """Every file that appears in an outbox, kept by a second name: its lines stay when the courier
    has taken it."""

    def __init__(self, root: Path, aside: Path) -> None:
        self.root, self.aside, self.ended = root, aside, threading.Event()
        aside.mkdir()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(NOTED_EVERY):
            for path in outbox(self.root).glob("[!.]*.reports"):
                with contextlib.suppress(OSError):
                    os.link(path, self.aside / path.name)

    def reports(self) -> list[dict[str, str]]:
        """All that was left there."""
        self.ended.set()
        self.thread.join()
        lines = [
            line
            for path in self.aside.iterdir()
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        return [json.loads(line) for line in lines]


def build(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a build of all that the project has."""
    return subprocess.Popen(
        [sys.executable, "-m", "meetara_build", "build"],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def forget(folder: Path) -> None:
    """Have everything but the base be made again."""
    for path in (folder / "artifacts").iterdir():
        if path.name not in (
            "base",
            ".outbox",
            "context.db",
            "context.db-wal",
            "context.db-shm",
            "runs.jsonl",
            "logs",
        ):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> int:
    """Print the report; 1 if anything was wrong."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--kills", type=int, default=50)
    words.add_argument("--seed", type=int, default=1)
    given = words.parse_args()
    draw = random.Random(given.seed)
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        far, near = project(Path(scratch) / "far"), prepare(Path(scratch) / "near", Path(scratch))
        said = build(near, {}).communicate()[0]
        expected = digests(near)
        forget(near)
        shutil.rmtree(outbox(near / "artifacts"), ignore_errors=True)
        notes = Notes(near / "artifacts", Path(scratch) / "notes")
        environment = {URL: f"http://127.0.0.1:{PORT}/mcp"}
        kills, builds, different, started = 0, 0, 0, time.monotonic()
        running = build(near, environment)
        while kills < given.kills:
            with served(far, "--port", str(PORT)):
                time.sleep(draw.uniform(0.1, 2.5))
            kills += 1  # leaving the block kills it
            time.sleep(draw.uniform(0.0, 1.5))
            if running.poll() is not None:
                said = running.communicate()[0]
                builds, different = (
                    builds + 1,
                    different + (running.returncode != 0 or digests(near) != expected),
                )
                forget(near)
                running = build(near, environment)
        with served(far, "--port", str(PORT)):
            said = running.communicate()[0]
            builds, different = (
                builds + 1,
                different + (running.returncode != 0 or digests(near) != expected),
            )
            until(
                lambda: not list(outbox(near / "artifacts").glob("[!.]*.reports")), DELIVERED_WITHIN
            )
        made = notes.reports()
        local = Local(f"sqlite:///{far / 'artifacts' / 'context.db'}", Retention())
        kept = [row["id"] for row in local.store.export()]
        local.close()
    ids = {report["id"] for report in made}
    lost, doubled = ids - set(kept), len(kept) - len(set(kept))
    print(
        f"{kills} kills of the server during {builds} builds, {(time.monotonic() - started) / 60:.1f} min"
    )
    print(f"  {different} builds with other artifacts than an undisturbed one")
    print(f"  {len(ids)} reports made, {len(lost)} lost, {doubled} doubled")
    counted = {"kills": kills, "builds": builds, "reports": len(ids), "different": different}
    keep_result("context_kills", {**counted, "lost": len(lost), "doubled": doubled})
    print(said[-1500:] if different else "", end="")
    return 1 if different or lost or doubled else 0


if __name__ == "__main__":
    sys.exit(main())
