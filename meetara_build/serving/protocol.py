"""Requests and answers in the shape that OpenAI's clients write and read.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meetara_build.errors import (
    UNEXPECTED,
    BusyError,
    HeldBackError,
    MeetaraError,
    NotServedError,
    RequestError,
    ServingError,
)
from meetara_build.outside import parse_json
from meetara_build.serving.generation import End, Sampling
from meetara_build.serving.router import Guess

TOKENS = 512
"""Of an answer, where a request does not say how many."""
MESSAGES, STOPS = 256, 4
LARGEST_STOP = 100
KEY = "meetara"
"""Where an answer says who gave it: a key that OpenAI's clients hand on, and others pass over."""


class _Lenient(BaseModel):
    """What is not named here is passed over: clients send much that changes no answer."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Part(_Lenient):
    type: Literal["text"]
    text: str


class _Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]


class _StreamOptions(_Lenient):
    include_usage: bool = False


class _TextFormat(_Lenient):
    type: Literal["text"]


class ChatRequest(_Lenient):
    """What is read of a request; what could not be kept is refused, where it is more than its
    default."""

    model: str
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MESSAGES)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: _TextFormat | None = None
    modalities: list[Literal["text"]] | None = None

    def turns(self) -> list[dict[str, str]]:
        """The conversation as chat templates take it."""
        return [
            {
                "role": "system" if message.role == "developer" else message.role,
                "content": message.content
                if isinstance(message.content, str)
                else "".join(part.text for part in message.content),
            }
            for message in self.messages
        ]

    def sampling(self) -> Sampling:
        """How the answer is to be drawn; greedily unless a temperature is given, as the answers
        were that the gate judged."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            self.max_completion_tokens or self.max_tokens or TOKENS,
            self.temperature or 0.0,
            1.0 if self.top_p is None else self.top_p,
            self.seed,
            tuple(stop),
        )


def read_request(body: bytes) -> ChatRequest:
    """A request.

    Raises:
        RequestError: it is none, or asks for what is not given.
    """
    try:
        request = ChatRequest.model_validate(parse_json(body))
    except ValidationError as error:
        raise RequestError(_explain(error)) from None
    except ValueError as error:
        raise RequestError(f"the body is no JSON ({error}); send an object") from None
    stops = request.sampling().stop
    if len(stops) > STOPS or not all(0 < len(stop) <= LARGEST_STOP for stop in stops):
        raise RequestError(f"stop: give at most {STOPS} texts of 1 to {LARGEST_STOP} characters")
    turns = request.turns()
    try:
        "".join(turn["content"] for turn in turns).encode()
    except UnicodeEncodeError:
        raise RequestError(
            "messages: half a character (a lone surrogate); send whole text"
        ) from None
    if turns[-1]["role"] != "user":
        raise RequestError("messages: the last one must be the user's; nothing is asked otherwise")
    return request


def _explain(error: ValidationError) -> str:
    """The first fault, with the key that has it."""
    faults = error.errors(include_url=False, include_input=False)
    where = ".".join(str(part) for part in faults[0]["loc"] if str(part).isidentifier() or
                     isinstance(part, int))  # fmt: skip
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (
        f"{where or 'the body'}: {faults[0]['msg']}{more}; texts alone are read and written here, "
        "one answer a request: see the page on serving"
    )


class Who(NamedTuple):
    """Who answers: the name of a model, and how it was chosen where the request left that open."""

    model: str
    domain: str | None
    base: str
    guesses: Sequence[Guess] | None = None
    threshold: float | None = None
    fallback: str | None = None

    def describe(self) -> dict[str, Any]:
        """As part of an answer."""
        found: dict[str, Any] = {"domain": self.domain, "base": self.base}
        if self.guesses is not None:
            found |= {
                "routed": True,
                "confidence": self.guesses[0].confidence if self.guesses else 0.0,
                "threshold": self.threshold,
                "candidates": [guess._asdict() for guess in self.guesses],
                "fallback": self.fallback,
            }
        return found

    def headers(self) -> dict[str, str]:
        """As headers, for clients that hand on no further keys."""
        found = {"x-meetara-model": self.model}
        if self.guesses is not None:
            sure = self.guesses[0].confidence if self.guesses else 0.0
            found["x-meetara-confidence"] = f"{sure:.4f}"
        return found


class Answer:
    """One answer, written whole or in chunks."""

    def __init__(self, who: Who) -> None:
        self.who = who
        self._common = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": who.model,
        }

    def whole(self, text: str, prompt_tokens: int, end: End) -> dict[str, Any]:
        """A ``chat.completion``."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": end.reason,
        }
        return {
            **self._common,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _count(prompt_tokens, end),
            KEY: self.who.describe(),
        }

    def first(self) -> str:
        """The chunk that opens an answer, which says who gives it."""
        return self._chunk(
            [_delta({"role": "assistant", "content": ""})], **{KEY: self.who.describe()}
        )

    def piece(self, text: str) -> str:
        """A chunk of text."""
        return self._chunk([_delta({"content": text})])

    def last(self, prompt_tokens: int, end: End, *, with_usage: bool) -> str:
        """The chunks that end an answer."""
        said = self._chunk([_delta({}, end.reason)])
        if with_usage:
            said += self._chunk([], usage=_count(prompt_tokens, end))
        return said + "data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**self._common, "object": "chat.completion.chunk", "choices": choices, **more}
        return write_event(chunk)


def write_event(content: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _count(prompt_tokens: int, end: End) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": end.tokens,
        "total_tokens": prompt_tokens + end.tokens,
    }


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HeldBackError):
        return 403
    if isinstance(error, NotServedError):
        return 404
    if isinstance(error, BusyError):
        return 429
    return 400 if isinstance(error, ServingError) else 500


def write_error(error: Exception, status: int | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it, with the house's code."""
    status = status or status_of(error)
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    known = isinstance(error, MeetaraError)
    return {
        "error": {
            "message": str(error) if known else "a fault of the server's own; its log has it",
            "type": kinds.get(status)
            or ("invalid_request_error" if status < 500 else "server_error"),
            "param": "model" if isinstance(error, NotServedError | HeldBackError) else None,
            "code": error.code if isinstance(error, MeetaraError) else UNEXPECTED,
        }
    }
