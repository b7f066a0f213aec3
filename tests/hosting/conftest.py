"""What the tests of agents share."""

from hostile import ask

__all__ = ["ask"]
