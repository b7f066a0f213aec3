"""What may be reported to the context: a shape for each kind, which nothing else gets past.

Every report has an ``id`` of its own, chosen by who makes it; one that is delivered twice counts
once.
"""

import json
import time
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from meetara_build.errors import ReportError
from meetara_build.outside import SPEAKER

LARGEST = 64_000
"""Bytes of JSON that one report may have."""
DEEPEST = 50
"""Lists and mappings inside each other: whatever writes or reads JSON can hold so many."""
AHEAD_SECONDS = 3600.0
"""By how much a report may be of a later time than this machine's: what is newest stays, and so
would a mistake."""


def _plain(text: str) -> str:
    """Text that every database and terminal can hold: no control characters, no halves of surrogate
    pairs."""
    bad = next(
        (
            char
            for char in text
            if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"
        ),
        None,
    )
    if bad is not None:
        raise ValueError(f"holds the control character {bad!r}; leave it out")
    return text


def _small(value: Any) -> Any:
    """JSON that is not too large, not too deep, finite, and all of plain text."""
    if _is_deeper(value, DEEPEST):
        raise ValueError(
            f"is nested too deep; at most {DEEPEST} lists and mappings inside each other are taken"
        )
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):
        raise ValueError("is no finite JSON; leave out NaN and infinities") from None
    if len(text) > LARGEST:
        raise ValueError(f"has {len(text)} characters of JSON; at most {LARGEST} are taken")
    for part in _texts(value):
        _plain(part)
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    held = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else None
    )
    return held is not None and (not levels or any(_is_deeper(one, levels - 1) for one in held))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _texts(held)


def _not_ahead(moment: float) -> float:
    """A time that this machine's clock has reached, or nearly."""
    ahead = moment - time.time()
    if ahead > AHEAD_SECONDS:
        raise ValueError(
            f"is {ahead / 3600:.1f} hours ahead of the clock here; give Unix time in seconds, or "
            "set the clocks"
        )
    return moment


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Target = Annotated[
    str,
    Field(
        pattern=r"^((base|bundle)/)?[a-z][a-z0-9_]{0,63}$",
        description="a domain, base/NAME or bundle/NAME",
    ),
]
Sender = Annotated[str, Field(pattern=f"^{SPEAKER}$", description="who says it")]
Word = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Text = Annotated[str, Field(min_length=1, max_length=8_000), AfterValidator(_plain)]
Number = Annotated[float, Field(ge=-1e18, le=1e18)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Time = Annotated[float, Field(ge=0, description="Unix time, seconds"), AfterValidator(_not_ahead)]
Values = Annotated[dict[str, Any], AfterValidator(_small)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Stage = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="one of the table of stages")
]
"""A name that becomes part of a path."""
AnyStage = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,63})?$")]
"""A stage, or nothing said of one."""
MessageKind = Literal["proposal", "error", "breakthrough", "note"]
Answer = Literal["accepted", "rejected", "noted"]


class Report(BaseModel):
    """What all kinds have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: Id
    time: Time


class _Job(Report):
    """Said by or of a job."""

    domain: Target
    stage: Stage
    build: Word = ""
    machine: Word = ""
    hardware: Word = ""


class Run(_Job):
    """A stage run that has ended: what it took, what it gave, and what it was made from. Seconds,
    MB, bytes, US dollars."""

    kind: Literal["run"] = "run"
    outcome: Literal["built", "restored", "failed"]
    seconds: Amount
    cpu_seconds: Amount = 0.0
    peak_mb: Amount = 0.0
    size: Count = 0
    fingerprint: Word = ""
    key: Word = ""
    usd: Amount = 0.0
    metrics: Values = {}
    recipe: Values = {}
    inputs: Values = {}
    error: Annotated[str, AfterValidator(_plain)] | None = None
    code: Word = ""


class Sample(_Job):
    """What a job and its machine use now. CPU and GPU in percent of one, MB."""

    kind: Literal["sample"] = "sample"
    cpu_percent: Amount
    memory_mb: Amount
    available_mb: Amount
    total_mb: Amount
    gpus: Annotated[list[dict[str, Number]], Field(max_length=64)] = []


class Progress(_Job):
    """How far a training is. Losses in nats a token."""

    kind: Literal["progress"] = "progress"
    step: Count
    steps: Count
    loss: Number | None = None
    validation_loss: Number | None = None
    learning_rate: Number | None = None
    tokens_per_second: Amount | None = None
    seconds: Amount = 0.0


class Metrics(Report):
    """Figures that someone else measured."""

    kind: Literal["metrics"] = "metrics"
    domain: Target
    sender: Sender
    stage: AnyStage = ""
    values: Annotated[
        dict[Annotated[str, Field(max_length=100), AfterValidator(_plain)], Number],
        Field(max_length=200),
    ]


class Error(Report):
    """What went wrong; and, once that is known, what solved it: in words, and as the values of the
    recipe that became others, each as ``key``, ``before``, ``after``."""

    kind: Literal["error"] = "error"
    domain: Target
    stage: AnyStage = ""
    sender: Sender
    message: Text
    code: Word = ""
    signature: Word = ""
    recipe: Values = {}
    solved: Time | None = None
    solution: Annotated[str, Field(max_length=8_000), AfterValidator(_plain)] | None = None
    changes: Annotated[list[dict[str, Any]], Field(max_length=50), AfterValidator(_small)] = []


class Proposal(BaseModel):
    """A change of the configuration that someone proposes, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+){0,7}$", max_length=200)]
    value: Annotated[Any, AfterValidator(_small)]
    reason: Text
    evidence: Annotated[list[Word], Field(max_length=50)] = []
    expected_gain: Number | None = None
    confidence: Share | None = None
    figure: Literal["loss", "seconds", "size", "memory"] = "loss"


class Message(Report):
    """What one agent tells the others. A proposal is for a domain, and its body is a
    ``Proposal``."""

    kind: Literal["message"] = "message"
    about: MessageKind
    sender: Sender
    domain: Target | None = None
    body: Values

    @model_validator(mode="after")
    def _has_the_form_of_a_proposal(self) -> "Message":
        if self.about == "proposal":
            Proposal.model_validate(self.body)
            if self.domain is None:
                raise ValueError("a proposal is for a domain; name it")
        return self


class Reply(Report):
    """How someone answered a message; the last answer of each counts."""

    kind: Literal["reply"] = "reply"
    message: Id
    sender: Sender
    answer: Answer
    reason: Annotated[str, Field(max_length=8_000), AfterValidator(_plain)] = ""


class Pattern(Report):
    """A change of one recipe and what it did to a figure of which less is better, on the same
    data."""

    kind: Literal["pattern"] = "pattern"
    domain: Target
    change: Text
    figure: Word
    before: Number
    after: Number
    runs: Annotated[list[Id], Field(max_length=10)] = []


SHAPES: dict[str, type[Report]] = {
    shape.model_fields["kind"].default: shape
    for shape in (Run, Sample, Progress, Metrics, Error, Message, Reply, Pattern)
}


def check_reports(reports: Iterable[Mapping[str, Any]]) -> list[Report]:
    """Reports in their shapes.

    Raises:
        ReportError: one of them is of no known kind, too large, or not of its kind's shape; all its
            faults are named.
    """
    return [_check(number, report) for number, report in enumerate(reports, 1)]


def _check(number: int, report: Mapping[str, Any]) -> Report:
    kind = report.get("kind")
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise ReportError(f"report {number}: kind {kind!r} is unknown; known: {', '.join(SHAPES)}")
    try:
        _small(report)
        return shape.model_validate(report)
    except ValidationError as error:
        raise ReportError(
            f"report {number} ({kind}): {describe_faults(error)}; mend it and report again"
        ) from None
    except ValueError as error:
        raise ReportError(f"report {number} ({kind}): {error}") from None


def describe_faults(error: ValidationError) -> str:
    """Each fault with the field it is in."""
    faults = {
        f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: "
        f"{fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_url=False, include_input=False)
    }
    return "; ".join(sorted(faults))
