"""Which records a step learns from: a few whole ones, never padded, never cut."""

import random
from collections.abc import Iterable, Sequence

from meetara_build.training.chat import Encoded


def batches(
    examples: Sequence[Encoded], batch_tokens: int, seed: int, epoch: int
) -> list[list[int]]:
    """Every record's index once, in the order of this seed and epoch, in batches of at most
    ``batch_tokens`` tokens.

    A record longer than ``batch_tokens`` is a batch of its own. Records come in random order, not
    sorted by length: nothing is padded, so similar lengths would save nothing and would make steps
    less like one another's.
    """
    order = list(range(len(examples)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return fill(order, examples, batch_tokens)


def fill(order: Iterable[int], examples: Sequence[Encoded], tokens: int) -> list[list[int]]:
    """Cut ``order`` into runs of at most ``tokens`` tokens; a longer record is a run of its own."""
    runs: list[list[int]] = []
    room = 0
    for index in order:
        length = len(examples[index].ids)
        if not runs or length > room:
            runs.append([])
            room = tokens
        runs[-1].append(index)
        room -= length
    return runs
