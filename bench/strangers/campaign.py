"""What a case is, and the place that it works in."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import small_project

BIN = Path(sys.executable).parent
PATIENCE = 900
"""Seconds that a command may take on a busy machine."""


class Wrong(Exception):
    """A case ended in another way than it should; says what was seen."""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


class Place:
    """An empty folder, and the projects that a case makes in it."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.folder, self._built = folder, built

    def project(self, name: str = "project", *, built: bool = False) -> Path:
        """A small project of three domains on a base that trains in seconds; with ``built``, one
        that is up to date."""
        target = self.folder / name
        if not built:
            with contextlib.redirect_stdout(io.StringIO()):  # what `init` says
                return small_project(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._built, target, symlinks=True)
        return target

    def run(self, project: Path, *words: str, **environment: str) -> Said:
        """Run ``meetara-build`` with these words."""
        return self.execute(project, [str(BIN / "meetara-build"), *words], environment)

    def execute(
        self,
        project: Path,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        typed: str = "",
    ) -> Said:
        """Run any command in a project; ``typed`` is its standard input."""
        warm = str(self.folder.parent)  # all cases share one warm process
        own = {**os.environ, "TMPDIR": warm, "COLUMNS": "200", **(environment or {})}
        done = subprocess.run(
            words,
            cwd=project,
            env=own,
            input=typed.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Said(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    def write_lines(self, path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
        """A JSONL file."""
        path.write_text(
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
            encoding="utf-8",
        )
        return path


@dataclass(frozen=True)
class Case:
    """One input: its number, what it is and what is right, and how it is tried."""

    number: str
    title: str
    check: Callable[[Place], None]


CASES: list[Case] = []


def case(number: str, title: str) -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    """Add a function to the campaign: it makes the input, looks at the outcome, and raises
    ``Wrong`` where that is not right."""

    def add(check: Callable[[Place], None]) -> Callable[[Place], None]:
        CASES.append(Case(number, title, check))
        return check

    return add


def expect(right: bool, seen: object) -> None:
    """Raise ``Wrong`` with what was seen unless it is right."""
    if not right:
        raise Wrong(str(seen)[-2000:])


def expect_refusal(said: Said, *words: str) -> None:
    """A command must fail with one message that holds these words, and without a traceback."""
    expect(said.code == 1, f"exit {said.code}: {said.text}")
    expect("Traceback" not in said.text and "unexpected" not in said.text, said.text)
    missing = [word for word in words if word not in said.text]
    expect(not missing, f"{missing} not in: {said.text}")


def expect_success(said: Said) -> None:
    """A command must end well."""
    expect(said.code == 0, f"exit {said.code}: {said.text}")
