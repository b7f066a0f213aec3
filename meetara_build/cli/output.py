"""How commands print: tables and progress for people, JSON for programs, and nothing that a text
from outside could steer."""

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from meetara_build.outside import show_block, show_json, show_line

WIDE = 200
"""Columns for a file or another program, where nobody has to see all of a table at once."""


class Screen(Console):
    """A console on which text is text: no markup, no codes of emoji, and what cannot be seen is
    written as an escape.

    Of a text of several lines only the first begins at the edge, so that what it quotes cannot pass
    for the tool's own line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As it is, of the text made visible: rich has every string of a line or a cell pass
        here."""
        return super().render_str(show_block(text), **options)


out = Screen(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
err = Screen(stderr=True)


def style_line(*parts: tuple[str, str]) -> Text:
    """A line of parts in several styles:
    ``style_line(("nutrition", "bold"), (": fresh", "green"))``."""
    return Text.assemble(*((show_line(text), style) for text, style in parts))


def print_json(value: Any, indent: int | None = 1) -> None:
    """JSON on standard output, with escapes for what cannot be seen, or cannot be written there."""
    anything = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    print(show_json(json.dumps(value, indent=indent, ensure_ascii=not anything)), flush=True)


def table(*columns: str) -> Table:
    """A table without lines; columns that start with ``>`` are set to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    return made


def progress() -> Progress:
    """A progress bar on standard error; silent where that is no terminal."""
    spinner = SpinnerColumn("line" if err.options.ascii_only else "dots")
    return Progress(
        spinner,
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Doing(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


class _Doing(ProgressColumn):
    """What is being done, as plain text: rich's own column would read it as markup."""

    def render(self, task: Task) -> Text:
        return style_line((task.description, ""))


def amount(count: int, thing: str) -> str:
    """``1 domain``, ``62 domains``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


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
