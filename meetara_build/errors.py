"""The error tree: class, code and meaning.

::

    MeetaraError               error                anything a person can mend; printed, exit 1
    ├── ConfigError            config               a file below conf/ says something it may not
    ├── DataError              data                 a source, a record or a split cannot be used
    │   └── BadRecordsError    data-bad-records     too many records of a source are bad
    ├── TrainingError          training             training cannot start, or its result is useless
    │   ├── NotFiniteError     training-not-finite  a loss or a gradient is no number, or infinite
    │   ├── DivergedError      training-diverged    the loss rises again however often it goes back
    │   ├── StepMemoryError    training-memory      a step does not fit into memory
    │   ├── UnmovedError       training-unmoved     the adapter is as it was before training
    │   ├── TooLongError       training-too-long    a record is longer than the base can read
    │   ├── WarmStartError     training-warm-start  the pinned adapter does not fit
    │   └── TargetsError       training-targets     an adapter cannot change the layers it names
    ├── ProofError             proof                a model is not equal to what it was made from
    │   ├── LogitsError        proof-not-finite     a model's logits are no numbers
    │   └── NoEffectError      proof-no-effect      the adapter changes nothing the base says
    ├── GateError              gate                 a model misses a bound that its domain sets
    │   ├── GateLossError      gate-loss            its held-out loss is too high
    │   ├── QuantError         gate-quant           a quant type is too far from F16
    │   ├── AnswersError       gate-answers         its answers may do harm
    │   └── RegressionError    gate-regression      it is worse than the build that was accepted
    ├── ArtifactError          artifact             an artifact is missing, damaged or unwritable
    │   └── UnwritableError    artifact-unwritable  the disk is full, or its rights forbid writing
    ├── BuildError             build                a build or one of its jobs failed
    │   ├── HeldBackError      build-held-back      models do not reach what their domains ask
    │   ├── JobMemoryError     build-memory         a job needs more memory than there is
    │   └── InputChangedError  build-input-changed  an input changed while a job read it
    ├── ContextError           context              the context cannot be reached, read or written
    │   └── ReportError        report               a report is not of its kind's shape
    ├── ServingError           serving              an answer cannot be given
    │   ├── RequestError       serving-request      a request asks for what cannot be read or given
    │   ├── NotServedError     serving-model        nothing is served under this name
    │   ├── TooLongTalkError   serving-too-long     a conversation is longer than the model can read
    │   └── BusyError          serving-busy         too many requests wait already
    ├── AgentError             agent                an agent cannot be asked, or its answer be used
    └── SetupError             setup                the installation does not fit together

A message starts with what is wrong and where (file, line or key) and ends with what to do. It is
for people, who see the code after it in brackets; programs, agents among them, tell errors apart by
the code alone, which goes with the run into its records and into the context. A code never changes.
"""

import contextlib
from collections.abc import Iterator, Sequence

UNEXPECTED = "unexpected"
"""The code of what nobody foresaw: a fault of this program's own."""


def add_code(message: str, code: str) -> str:
    """A message as people see it: ``step 7: the loss is nan: … [training-not-finite]``."""
    return f"{message} [{code}]"


class MeetaraError(Exception):
    """Anything a person can mend; printed, exit 1."""

    code = "error"


class ConfigError(MeetaraError):
    """A file below conf/ says something it may not."""

    code = "config"


class DataError(MeetaraError):
    """A source, a record or a split cannot be used."""

    code = "data"


class BadRecordsError(DataError):
    """Too many records of a source are bad."""

    code = "data-bad-records"


class TrainingError(MeetaraError):
    """Training cannot start, or its result is useless."""

    code = "training"


class NotFiniteError(TrainingError):
    """A loss or a gradient is no number, or infinite."""

    code = "training-not-finite"


class DivergedError(TrainingError):
    """The loss rises again however often it goes back."""

    code = "training-diverged"


class StepMemoryError(TrainingError):
    """A step does not fit into memory."""

    code = "training-memory"


class UnmovedError(TrainingError):
    """The adapter is as it was before training."""

    code = "training-unmoved"


class TooLongError(TrainingError):
    """A record is longer than the base can read."""

    code = "training-too-long"


class WarmStartError(TrainingError):
    """The pinned adapter does not fit."""

    code = "training-warm-start"


class TargetsError(TrainingError):
    """An adapter cannot change the layers it names."""

    code = "training-targets"


class ProofError(MeetaraError):
    """A model is not equal to what it was made from."""

    code = "proof"


class LogitsError(ProofError):
    """A model's logits are no numbers."""

    code = "proof-not-finite"


class NoEffectError(ProofError):
    """The adapter changes nothing the base says."""

    code = "proof-no-effect"


class GateError(MeetaraError):
    """A model misses a bound that its domain sets."""

    code = "gate"


class GateLossError(GateError):
    """Its held-out loss is too high."""

    code = "gate-loss"


class QuantError(GateError):
    """A quant type is too far from F16."""

    code = "gate-quant"


class AnswersError(GateError):
    """Its answers may do harm."""

    code = "gate-answers"


class RegressionError(GateError):
    """It is worse than the build that was accepted."""

    code = "gate-regression"


class ArtifactError(MeetaraError):
    """An artifact is missing, damaged or unwritable."""

    code = "artifact"


class UnwritableError(ArtifactError):
    """The disk is full, or its rights forbid writing."""

    code = "artifact-unwritable"


class BuildError(MeetaraError):
    """A build or one of its jobs failed."""

    code = "build"


class HeldBackError(BuildError):
    """Models do not reach what their domains ask."""

    code = "build-held-back"


class JobMemoryError(BuildError):
    """A job needs more memory than there is."""

    code = "build-memory"


class InputChangedError(BuildError):
    """An input changed while a job read it."""

    code = "build-input-changed"


class ContextError(MeetaraError):
    """The context cannot be reached, read or written."""

    code = "context"


class ReportError(ContextError):
    """A report is not of its kind's shape."""

    code = "report"


class ServingError(MeetaraError):
    """An answer cannot be given."""

    code = "serving"


class RequestError(ServingError):
    """A request asks for what cannot be read or given."""

    code = "serving-request"


class NotServedError(ServingError):
    """Nothing is served under this name."""

    code = "serving-model"


class TooLongTalkError(ServingError):
    """A conversation is longer than the model can read."""

    code = "serving-too-long"


class BusyError(ServingError):
    """Too many requests wait already."""

    code = "serving-busy"


class AgentError(MeetaraError):
    """An agent cannot be asked, or its answer be used."""

    code = "agent"


class SetupError(MeetaraError):
    """The installation does not fit together."""

    code = "setup"


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
