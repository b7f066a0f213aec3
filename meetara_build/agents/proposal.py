"""A change of the configuration that an agent proposes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Figure = Literal["loss", "seconds", "size", "memory"]
"""What a proposal promises less of: loss on validation records, seconds of the training, bytes of
the GGUF files, memory."""


@dataclass(frozen=True)
class Proposal:
    """One key of one domain, and why.

    Attributes:
        key: dotted, as in conf/build.yaml: ``training.epochs``.
        reason: a sentence for people.
        evidence: ids of runs, and figures.
        expected_gain: the share by which ``figure`` falls: 0.05 is five percent less.
        confidence: how sure the agent is of it, from 0 to 1.
    """

    domain: str
    key: str
    value: Any
    reason: str
    evidence: Sequence[str] = ()
    expected_gain: float = 0.0
    confidence: float = 0.5
    figure: Figure = "loss"
