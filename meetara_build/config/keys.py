"""Dotted keys of the configuration, and the sections that they are in."""

from collections.abc import Iterable


def is_within(key: str, sections: Iterable[str]) -> bool:
    """Whether a key is one of these, or in one of them: ``lora.rank`` is within ``lora``."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)
