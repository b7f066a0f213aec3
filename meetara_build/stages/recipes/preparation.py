"""What decides a domain's records and their split, before any limit in tokens."""

from meetara_build.stages.types import Recipe


class SourceRecipe(Recipe):
    """One source; a file goes by its own name, so that moving a checkout changes nothing."""

    name: str
    format: str | None = None
    hub: str | None = None
    revision: str | None = None
    split: str = "train"
    columns: dict[str, str] | None = None
    language: str | None = None
    limit: int | None = None


class Preparation(Recipe):
    """Sources, cleaning, duplicates and split."""

    domain: str
    system_prompt: str | None
    languages: list[str]
    sources: list[SourceRecipe]
    near_duplicate: float
    near_group: float
    validation: float
    test: float
    max_bad_share: float
    repair_text: bool
    html_to_text: bool
