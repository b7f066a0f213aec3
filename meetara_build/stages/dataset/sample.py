"""The pinned sample: training records that a base's importance matrix and common start are made of.

It is a file of its own, so that no edit of a domain's data changes what all domains stand on. A
record in it is never held out: the split puts it, and what is like it, on the training side.
"""

from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import parse_json
from meetara_build.stages.dataset.records import Message, content_id
from meetara_build.stages.types import Inputs

SAMPLE = "sample"
"""What the file is called among a stage's inputs."""
ROLES = ("user", "assistant")


def read_sample(path: Path) -> list[list[Message]]:
    """The conversations of a sample, in its order; blank lines are passed over.

    Raises:
        DataError: a line is no conversation of user and assistant, or there is none.
    """
    lines = path.read_bytes().splitlines()
    found = [_read(line, f"{path}:{at}") for at, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no record; add some, or set `sample: null`")
    return found


def find_taught(inputs: Inputs) -> frozenset[str]:
    """The ids of the sampled records; none where there is no sample."""
    path = inputs.get(SAMPLE)
    return frozenset(map(content_id, read_sample(path))) if path is not None else frozenset()


def _read(line: bytes, where: str) -> list[Message]:
    try:
        record: Any = parse_json(line)
        turns = record["messages"]
        messages = [Message(role=turn["role"], content=turn["content"]) for turn in turns]
    except (ValueError, LookupError, TypeError):
        messages = []
    roles = [message["role"] for message in messages]
    texts = [message["content"] for message in messages]
    alternate = roles == [ROLES[at % 2] for at in range(len(roles))] and len(roles) % 2 == 0
    if not messages or not alternate or not all(isinstance(text, str) and text for text in texts):
        raise DataError(
            f'{where}: is no conversation; write {{"messages": [{{"role": "user", "content": …}}, '
            '{"role": "assistant", "content": …}]}'
        )
    return messages
