"""A build that a person accepted, and how it scored."""

from meetara_build.stages.types import Recipe


class Accepted(Recipe):
    """``base`` is the base's name; ``records`` have by id the F16 file's loss in nats per token, and how
    many tokens that is of."""

    base: str
    records: dict[str, tuple[float, int]]
