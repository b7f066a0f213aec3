"""Kinds of values that keys may have."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

NAME = "[a-z][a-z0-9_]{0,63}"
"""What folders, rules and reports can be called, and so every file below conf/ that stands for something."""

Name = Annotated[str, Field(pattern=f"^{NAME}$", description="lower-case letters, digits and _, 64 at most")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


def _require_form(pattern: str, wanted: str) -> AfterValidator:
    """Text of one form, said in words where it is of another."""

    def check_form(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {wanted}, not {text[:80]!r}")
        return text

    return AfterValidator(check_form)


Commit = Annotated[str, _require_form("[0-9a-f]{40}", "a commit's 40 hex digits, as the hub lists them under Files")]
Digest = Annotated[str, _require_form("[0-9a-f]{64}", "a SHA-256's 64 hex digits")]
Pinned = Annotated[
    str, _require_form(r"[A-Za-z0-9][\w.-]*==\d[\w.!+]*", "a package and one version of it, NAME==VERSION")
]
Scalar = bool | int | float | str | list[Any] | dict[str, Any] | None
QuantName = str
