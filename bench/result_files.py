"""What benchmarks measured, kept as data: ``bench/results/NAME.json``, each with its machine, date,
commit and the load beside it.

``bench.figures`` renders docs/figures.md from these files, so that no figure is typed by hand.
"""

import json
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from bench import machine

FOLDER = Path(__file__).parent / "results"


def keep_result(name: str, figures: Mapping[str, Any]) -> None:
    """Write ``NAME.json``; what was run smaller than usual says so in its figures, or is not
    kept."""
    stamp = {
        "machine": machine.describe_machine(),
        "date": str(date.today()),
        "commit": machine.commit(),
        "load": round(os.getloadavg()[0], 1),
    }
    write_result(name, {**stamp, **figures})


def write_result(name: str, content: Mapping[str, Any]) -> None:
    """Write a result that has its stamp."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read_result(name: str) -> dict[str, Any]:
    """A kept result."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content
