"""What every stage takes and returns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Recipe(BaseModel):
    """The slice of the configuration that one stage reads.

    Its JSON is what is hashed: every field is in it, None as null, so that equal recipes are equal
    bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def shared_slots(self) -> int:
        """How many such jobs a resident trainer computes for at once; 1 for a job that computes
        itself."""
        return 1


Inputs = Mapping[str, Path]
"""Artifact folders and source files by name."""

Metrics = dict[str, Any]
"""Figures that the same recipe and inputs always give again: no times, speeds or memory."""

MEASURED = "measured"
"""Key of a stage's own JSON file for figures that differ from run to run; digests ignore it."""

HELD_BACK = "held_back"
"""The metric by which a package says that its model is held back: an error's code and message."""


def checkpoint_folder(output: Path) -> Path:
    """Where a stage keeps what lets it go on after a kill; the caller deletes it on success."""
    return output.parent / "checkpoint"
