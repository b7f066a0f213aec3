"""Kinds of values that keys may have."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

LONGEST_PATTERN, MOST_REPEATS = 500, 4
"""Characters, enough to name every layer, and quantifiers: each multiplies the time that a search
may take."""

NAME = "[a-z][a-z0-9_]{0,63}"
"""What folders, rules and reports can be called, and so every file below conf/ that stands for
something."""

Name = Annotated[
    str, Field(pattern=f"^{NAME}$", description="lower-case letters, digits and _, 64 at most")
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


def require_form(pattern: str, wanted: str) -> AfterValidator:
    """Text of one form, said in words where it is of another."""

    def check_form(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {wanted}, not {text[:80]!r}")
        return text

    return AfterValidator(check_form)


Harm = Literal["calls", "phones", "doses", "amounts", "addresses", "statutes", "referral"]
"""The checks of answers whose findings can do harm."""
Commit = Annotated[
    str,
    require_form("[0-9a-f]{40}", "a commit's 40 hex digits, as the hub lists them under Files"),
]
Digest = Annotated[str, require_form("[0-9a-f]{64}", "a SHA-256's 64 hex digits")]
Pinned = Annotated[
    str,
    require_form(
        r"[A-Za-z0-9][\w.-]*==\d[\w.!+]*", "a package and one version of it, NAME==VERSION"
    ),
]


def _check_tensor_pattern(pattern: str) -> str:
    """A regular expression over tensors' names that is searched for in no time."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"'{pattern[:80]}' is no regular expression ({error})") from None
    plain = re.sub(r"\\.|\(\?", "", pattern)
    if (
        len(pattern) > LONGEST_PATTERN
        or len(re.findall("[*+?{]", plain)) > MOST_REPEATS
        or re.search(r"\)[*+{]", plain)
    ):
        raise ValueError(
            f"'{pattern[:80]}' may take for ever to search for; repeat no group, repeat at most "
            f"{MOST_REPEATS} times, and use at most {LONGEST_PATTERN} characters"
        )
    return pattern


TensorPattern = Annotated[str, AfterValidator(_check_tensor_pattern)]
Scalar = bool | int | float | str | list[Any] | dict[str, Any] | None
QuantName = str
