"""The pinned sample: training records that a base's importance matrix and common start are made of.

It is a file of its own, so that no edit of a domain's data changes what all domains stand on. A
record in it is never held out: the split puts it, and what is like it, on the training side.
"""

from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import parse_json

SAMPLE = "sample"
"""What the file is called among a stage's inputs."""
ROLES = ("user", "assistant")

Turn = dict[str, str]
"""``role`` and ``content``."""


def read_sample(path: Path) -> list[list[Turn]]:
    """The conversations of a sample, in its order; blank lines are passed over.

    Raises:
        DataError: a line is no conversation of user and assistant, or there is none.
    """
    lines = path.read_bytes().splitlines()
    found = [_read(line, f"{path}:{at}") for at, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no record; add some, or set `sample: null`")
    return found


def _read(line: bytes, where: str) -> list[Turn]:
    try:
        record: Any = parse_json(line)
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in record["messages"]]
    except (ValueError, LookupError, TypeError):
        turns = []
    wanted = [ROLES[at % 2] for at in range(len(turns))]
    texts = [turn["content"] for turn in turns]
    if (
        not turns
        or len(turns) % 2
        or [turn["role"] for turn in turns] != wanted
        or not all(isinstance(text, str) and text for text in texts)
    ):
        raise DataError(
            f'{where}: is no conversation; write {{"messages": [{{"role": "user", "content": …}}, '
            '{"role": "assistant", "content": …}]}'
        )
    return turns
