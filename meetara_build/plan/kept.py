"""The shape of a plan that was kept in a file: what of it decides whether it still holds."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class _Part(BaseModel):
    """Other keys are for readers."""

    model_config = ConfigDict(strict=True)


class _MadeFrom(_Part):
    recipe: dict[str, Any]
    code: dict[str, str]
    libraries: dict[str, str]
    sources: dict[str, str]


class _Item(_Part):
    step: str
    action: Literal["RUN", "RESTORE", "MAYBE", "FRESH"]
    key: str


class _KeptPlan(_Part):
    version: int
    project: str
    profile: str
    domains: list[str]
    overrides: list[str]
    items: list[_Item]
    made_from: dict[str, _MadeFrom]


def check_kept(content: Any) -> dict[str, Any]:
    """A plan as its file has it.

    Raises:
        ValueError: it is none.
    """
    try:
        _KeptPlan.model_validate(content)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    kept: dict[str, Any] = content
    return kept
