"""How commands print: tables and progress for people, JSON for programs."""

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDE = 200
"""Columns for a file or another program, where nobody has to see all of a table at once."""

out = Console(
    soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
)  # fmt: skip
err = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """Plain JSON on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def table(*columns: str) -> Table:
    """A table without lines; columns that start with ``>`` are set to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


def progress() -> Progress:
    """A progress bar on standard error; silent where that is no terminal."""
    return Progress(
        SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip


def amount(count: int, thing: str) -> str:
    """``1 domain``, ``62 domains``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def short(value: Any) -> str:
    """A value of the configuration in a line."""
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def span(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def money(dollars: float) -> str:
    """US dollars."""
    return f"${dollars:.2f}"
