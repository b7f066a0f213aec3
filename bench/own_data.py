"""Data of one's own on the base ``tiny``, added as a new user would: built to packaged files, and
how far they are below the base's loss.

python -m bench.own_data FILE.jsonl [FILE.csv …]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.result_files import keep_result
from bench.tiny import tiny_project

BIN = Path(sys.executable).parent


def measure(project: Path, file: Path) -> None:
    """Add one file as a domain, build it, and print its held-out losses."""
    name = file.stem.lower().replace("-", "_")
    tool = str(BIN / "meetara-build")
    subprocess.run(
        [tool, "add-domain", name, "--from", str(file.resolve())], cwd=project, check=True
    )
    started = time.monotonic()
    subprocess.run([tool, "build", name], cwd=project, check=True, stdout=subprocess.DEVNULL)
    content = json.loads(
        (project / "artifacts" / name / "evaluation" / "evaluation.json").read_text()
    )
    counts = json.loads((project / "artifacts" / name / "dataset" / "card.json").read_text())[
        "counts"
    ]
    base = content["base"]["loss"]
    print(
        f"{file.name}: {counts}, built in {(time.monotonic() - started) / 60:.1f} min; base {base:.3f} nats a token"
    )
    for quant, figures in content["variants"].items():
        print(
            f"  {quant:7} {figures['loss']:.3f}: {1 - figures['loss'] / base:.1%} below the base (at least 10%)",
            flush=True,
        )
    loss = content["variants"]["F16"]["loss"]
    records = counts["kept"]
    keep_result(
        f"own_data_{name}",
        {"records": records, "base": base, "loss": loss, "below": 1 - loss / base},
    )


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("files", type=Path, nargs="+")
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        project = tiny_project(Path(scratch) / "own")
        for file in given.files:
            measure(project, file)


if __name__ == "__main__":
    main()
