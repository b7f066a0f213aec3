"""The README's first command in a fresh clone: what set-up and demo take, and what the demo says.

python -m bench.demo [--keep FOLDER]
"""

import argparse
import json
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.result_files import keep_result
from meetara_build.store import journal

REPOSITORY = Path(__file__).parents[1]
BASE = "smollm2_135m"


def run_target(target: str, folder: Path) -> tuple[str, dict[str, float]]:
    """``make TARGET``: its output, and what it took.

    Raises:
        SystemExit: it failed.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        ["make", target],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where it says why a model is held back
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"make {target} failed:\n{done.stdout[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"seconds": round(time.monotonic() - started), "cpu_seconds": round(cpu)}


def read_proof(root: Path) -> dict[str, Any]:
    """How the base's own file compares with the file that it was taken back from."""
    path = root / "base" / BASE / "gguf" / "proof.json"
    proof = json.loads(path.read_text(encoding="utf-8"))
    texts = proof["tokens"]["texts"]
    return {"texts": texts, "same": texts, "logits": proof["original"]["worst"]}


def main() -> None:
    """Clone, set up, build, print and keep."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--keep", type=Path, help="clone into this new folder and leave it")
    given = words.parse_args()
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        clone = given.keep or Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        _, setup = run_target("setup", clone)
        output, demo = run_target("demo", clone)
        root = clone / "artifacts"
        # Jobs are children of a process that has left the command, so their own records count.
        demo["cpu_seconds"] = round(sum(one.cpu_seconds for one in journal.runs(root)))
        lines = [line.rstrip() for line in output.splitlines() if line.strip()]
        proof = read_proof(root)
    shown = [line for line in lines if not re.match(r"(Python|PyTorch|llama)", line)]
    print(*shown, sep="\n")
    keep_result("demo", {"setup": setup, "demo": demo, "proof": proof, "output": shown})


if __name__ == "__main__":
    main()
