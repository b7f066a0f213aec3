"""How long the commands that people and rules call often take, in units of an empty Python.

python -m bench.startup
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.result_files import keep_result

BIN = Path(sys.executable).parent
REPEATS = 11


def seconds(command: list[str], folder: Path, **environment: str) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, check=True
    )
    return time.perf_counter() - started


def main() -> None:
    """Print the report: medians of interleaved runs."""
    print(machine.describe())
    empty, tool = [sys.executable, "-c", "pass"], str(BIN / "meetara-build")
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "project"
        subprocess.run([tool, "init", str(project)], check=True, capture_output=True)
        commands = {
            "help": [tool, "--help"],
            "plan": [tool, "plan"],
        }
        typed = {
            "COMP_WORDS": "meetara-build\nbuild\nnutr",
            "COMP_CWORD": "2",
            "_MEETARA_BUILD_COMPLETE": "complete_bash",
        }
        commands["completion"] = [tool]
        ratios = {}
        for name, command in commands.items():
            given = typed if command == [tool] else {}
            seconds(command, project, **given)
            pairs = [
                (seconds(command, project, **given), seconds(empty, project))
                for _ in range(REPEATS)
            ]
            ratios[name] = round(statistics.median(ours / theirs for ours, theirs in pairs), 2)
            middle = statistics.median(ours for ours, _ in pairs)
            print(f"{name}: {middle:.3f} s, {ratios[name]:.1f} times `python -c pass`")
    keep_result("startup", ratios)


if __name__ == "__main__":
    main()
