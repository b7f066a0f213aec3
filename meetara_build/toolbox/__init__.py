"""What agents compute with, a public interface beside ``meetara_build.agents``."""

from meetara_build.errors import needs

__all__ = ["needs"]
