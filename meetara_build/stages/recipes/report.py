"""What the map over all domains shows."""

from meetara_build.stages.types import Recipe


class ReportRecipe(Recipe):
    """By domain its category, the one whose adapter it begins from, and those whose records it
    learns too."""

    domains: dict[str, str]
    begins_from: dict[str, str]
    learns_with: dict[str, list[str]]
