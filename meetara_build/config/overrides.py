"""What a command line sets, in Hydra's words, and for which domains:
``nutrition training.epochs=4 hardware=a10``.

Every process of a build is handed the same words, so that each composes what the plan showed.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from meetara_build.store.manifest import digest_json

COMMAND_LINE = "command line"
"""What stands in the place of a file's name where the command line sets a key."""


class Overrides(NamedTuple):
    """Hydra's words, and the domains they are for: all of them where none is named."""

    words: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def reaches(self, domain: str) -> bool:
        """Whether a domain's configuration has them."""
        return bool(self.words) and (not self.domains or domain in self.domains)

    def as_text(self) -> str:
        """All words as one, in which neither a shell, nor YAML, nor Snakemake sees anything but
        text."""
        return ",".join(quote(word, safe="") for word in (*self.domains, *self.words))

    def digest(self) -> str:
        """A short name for files that hold what was composed with them."""
        return digest_json(self)[:12]


NO_OVERRIDES = Overrides()


def split_words(words: Sequence[str]) -> Overrides:
    """Domains and overrides of a command line: what has a ``=``, or begins with ``+`` or ``~``, is
    an override."""
    said = [word for word in words if "=" in word or word.startswith(("+", "~"))]
    return Overrides(tuple(said), tuple(word for word in words if word not in said))


def read_overrides(given: str | None) -> Overrides:
    """The words as another process was handed them (`Overrides.as_text`); none where it was handed
    nothing."""
    return split_words([unquote(word) for word in given.split(",")]) if given else NO_OVERRIDES
