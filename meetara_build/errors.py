"""The error tree.

::

    MeetaraError                 anything a person can mend; the command line prints it and exits 1
    ├── ConfigError              a file below conf/ says something it may not
    ├── DataError                a source, a record or a split cannot be used
    ├── TrainingError            training cannot start, or its result is worthless
    ├── ProofError               a model is not equal to what it was made from
    ├── GateError                a model misses a bound that its domain sets
    ├── ArtifactError            an artifact is missing, damaged or cannot be written
    ├── BuildError               a build or one of its jobs failed
    ├── ContextError             the context cannot be reached, read or written
    │   └── ReportError          a report is not of its kind's shape
    ├── AgentError               an agent cannot be asked, or gives what nobody can use
    └── SetupError               the installation does not fit together

A message starts with what is wrong and where (file, line or key) and ends with what to do.
"""

import contextlib
from collections.abc import Iterator, Sequence


class MeetaraError(Exception):
    """Anything a person can mend."""


class ConfigError(MeetaraError):
    """A file below conf/ says something it may not."""


class DataError(MeetaraError):
    """A source, a record or a split cannot be used."""


class TrainingError(MeetaraError):
    """Training cannot start, or its result is worthless."""


class ProofError(MeetaraError):
    """A model is not equal to what it was made from."""


class GateError(MeetaraError):
    """A model misses a bound that its domain sets."""


class ArtifactError(MeetaraError):
    """An artifact is missing, damaged or cannot be written."""


class BuildError(MeetaraError):
    """A build or one of its jobs failed."""


class ContextError(MeetaraError):
    """The context cannot be reached, read or written."""


class ReportError(ContextError):
    """A report is not of its kind's shape."""


class AgentError(MeetaraError):
    """An agent cannot be asked, or gives what nobody can use."""


class SetupError(MeetaraError):
    """The installation does not fit together."""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports of libraries that come with an extra of this package only.

    Raises:
        SetupError: one is not installed; it says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "meetara_build"):
            raise
        raise SetupError(
            f"{library} is not installed; get it with `pip install 'meetara-build[{extra}]'`"
        ) from None


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or the known words, for the end of a message."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = sorted(known)
    return f"; known: {', '.join(shown[:30])}{' …' if len(shown) > 30 else ''}"
