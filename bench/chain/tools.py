"""What llama.cpp's converter imports and this tool's own way of calling it does without."""

import os
import subprocess
import sys
from pathlib import Path

NEEDS = "sentencepiece==0.2.3"


def find_converter_needs(work: Path) -> None:
    """Put the package where the processes of this run find it, and nowhere else."""
    folder = work / "tools"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", folder, NEEDS], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (os.environ.get("PYTHONPATH"), str(folder)))
    )
