"""What a bundle holds, and what its index says of it."""

from meetara_build.setup.originals import Original
from meetara_build.stages.types import Recipe


class MemberRecipe(Recipe):
    """A domain in a bundle; ``quants`` are the types that it was judged on, ``files`` is
    ``gguf.files``: where that is ``both``, it was judged as whole models."""

    category: str
    description: str
    languages: list[str]
    system_prompt: str | None
    quants: list[str]
    files: str


class BundleRecipe(Recipe):
    """``quants`` are the types of the base's own files; ``members`` are the domains' names, each of
    which ``domains`` describes."""

    name: str
    description: str
    members: list[str]
    quants: list[str]
    base: str
    base_origin: str
    base_file: Original | None
    licence: str
    domains: dict[str, MemberRecipe]


def find_default(quants: list[str], judged: list[str]) -> str | None:
    """The type that a domain is used on: of the bundle's the last that the domain was judged on, by
    custom the smallest; None where there is none."""
    return next((quant for quant in reversed(judged) if quant in quants), None)
