"""Answers in a file, one line a prompt.

Not below ``answers``, so that the stages that write the file do not depend on the checks.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meetara_build.errors import ArtifactError
from meetara_build.outside import parse_json

ANSWERS = "answers.jsonl"
"""A line for each prompt: the record's id, topic and language, what was asked, a person's answer, and
by name those of files."""

VERDICT = "verdict.json"
"""What came of judging: ``answers``, by file what ``count_findings`` gives; ``held_back``, the error's
``code`` and ``message``, or null."""

Said = dict[str, Any]
"""A file's answer: ``text``, ``ended``, ``tokens``, and ``nats`` of its choices, the right one
first."""


def write_lines(path: Path, lines: Iterable[Said]) -> None:
    """Write answers, one a line."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def read_lines(path: Path, stage: str) -> list[Said]:
    """Answers as they were written by a stage.

    Raises:
        ArtifactError: the file is not there.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path.parent.name}/{path.name}: no such file. Build the {stage} stage again."
        )
    with path.open(encoding="utf-8") as lines:  # ``splitlines`` would cut within answers too
        return [parse_json(line) for line in lines]
