"""``conf/bundle/NAME.yaml``: a base and the adapters of many domains, in one folder."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from meetara_build.config.schema.checking import Shape
from meetara_build.config.schema.values import Name, QuantName
from meetara_build.llama_cpp.quants import check_quants


class Bundle(Shape):
    """``conf/bundle/NAME.yaml``: a base once, with the adapters of many domains on it."""

    description: str
    """For people; goes into the bundle's index."""
    domains: Literal["all"] | Annotated[list[Name], Field(min_length=1)]
    """Domains and categories of this build, or `all`."""
    quants: Literal["all"] | Annotated[list[QuantName], Field(min_length=1)]
    """Types of the base's own files: F16, and those of `base.quants`; or `all` of them."""

    @field_validator("quants")
    @classmethod
    def _check_quants(cls, quants: str | list[str]) -> str | list[str]:
        if isinstance(quants, list):
            check_quants(quants)
        return quants
