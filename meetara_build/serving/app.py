"""The HTTP face: ``/v1/models``, ``/v1/chat/completions``, ``/health`` and ``/metrics``."""

import asyncio
import contextlib
import traceback
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from meetara_build.errors import BusyError, ContextError, MeetaraError, RequestError
from meetara_build.serving import metrics as told
from meetara_build.serving.generation import End
from meetara_build.serving.metrics import Metrics
from meetara_build.serving.models import AUTO, BASE, Models
from meetara_build.serving.protocol import (
    Answer,
    ChatRequest,
    Who,
    read_request,
    status_of,
    write_error,
    write_event,
)
from meetara_build.serving.router import Router
from meetara_build.serving.worker import Begun, Event, Job, Worker

LARGEST_BODY = 1 << 20
"""Bytes of a request."""
UNREAD_SECONDS = 30.0
"""How long a piece of an answer waits for a client that does not read."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")


class Service:
    """What answers requests: the models, the one worker, the router of the moment."""

    def __init__(self, models: Models, worker: Worker, metrics: Metrics) -> None:
        self.models, self.worker, self.metrics = models, worker, metrics
        self.router = Router([])

    async def choose(self, request: ChatRequest) -> Who:
        """Who answers a request.

        Raises:
            HeldBackError: it asks for a domain that is held back.
            NotServedError: it asks for a model that is not served.
        """
        if request.model != AUTO:
            name = self.models.find(request.model)
            domain = self.models.domains.get(name)
            base = domain.base.name if domain else name.removeprefix(BASE)
            return Who(name, name if domain else None, base)
        asked = " ".join(turn["content"] for turn in request.turns() if turn["role"] == "user")
        router = self.router
        guesses = await anyio.to_thread.run_sync(router.guess, asked)
        return self._follow(guesses, router.threshold)

    def _follow(self, guesses: Sequence[Any], threshold: float) -> Who:
        """The domain of the best guess; the base, where it is not sure enough or not served."""
        best = guesses[0] if guesses else None
        fallback = None
        if best is None or best.confidence < threshold:
            fallback = "no domain is sure enough"
        elif best.domain not in self.models.domains:
            refused = self.models.refused.get(best.domain)
            why = "held back" if refused and refused.held_back else "not served"
            fallback = f"{best.domain} is {why}"
        domain = self.models.domains.get(best.domain) if best and not fallback else None
        if domain is not None:
            found = Who(domain.built.domain, domain.built.domain, domain.base.name)
        else:
            near = self.models.domains.get(best.domain) if best else None
            base = near.base.name if near else next(iter(self.models.bases))
            found = Who(f"{BASE}{base}", None, base)
        self.metrics.add("routed_total", model=found.model)
        return found._replace(guesses=guesses, threshold=round(threshold, 4), fallback=fallback)


def make_app(
    service: Service,
    hosts: Sequence[str],
    is_valid: Callable[[str], bool] | None,
    background: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Any:
    """The application, for requests that are meant for these ``hosts``.

    ``is_valid`` says whether a token lets its holder in; without it nobody is asked for one.
    ``background`` runs as long as the application does.
    """

    @contextlib.asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            if background is not None:
                group.start_soon(background)
            yield
            group.cancel_scope.cancel()

    face = _Face(service)
    routes = [
        Route("/v1/models", face.list_models),
        Route("/v1/models/{name:path}", face.show_model),
        Route("/v1/chat/completions", face.complete, methods=["POST"]),
        Route("/health", face.health),
        Route("/metrics", face.show_metrics),
    ]
    app = Starlette(
        routes=routes,
        lifespan=live,
        exception_handlers={404: _say_unknown, 405: _say_unknown, Exception: _say_fault},
    )
    return _Guard(app, hosts, is_valid)


class _Face:
    """What each route answers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def list_models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._describe_models()})

    async def show_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = [one for one in self._describe_models() if one["id"] == name]
        if found:
            return JSONResponse(found[0])
        try:
            self.service.models.find(name)
        except MeetaraError as error:
            return _refuse(error)
        return JSONResponse({"id": name, "object": "model"})

    async def health(self, _: Request) -> Response:
        service = self.service
        well = service.worker.is_alive() and bool(service.models.domains)
        return JSONResponse(
            {
                "status": "ok" if well else "failing",
                "domains": sorted(service.models.domains),
                "held_back": sorted(
                    name for name, one in service.models.refused.items() if one.held_back
                ),
                "waiting": service.worker.waiting,
            },
            status_code=200 if well else 503,
        )

    async def show_metrics(self, _: Request) -> Response:
        service = self.service
        gauges: Mapping[tuple[str, str], float] = {
            ("waiting", ""): service.worker.waiting,
            ("domains", "state=served"): len(service.models.domains),
            ("domains", "state=refused"): len(service.models.refused),
        }
        return Response(
            service.metrics.text(gauges), media_type=None, headers={"content-type": told.TYPE}
        )

    async def complete(self, request: Request) -> Response:
        model = "unknown"
        try:
            asked = read_request(await _read_body(request))
            who = await self.service.choose(asked)
            model = who.model
            response = await self._answer(request, asked, who)
        except ClientDisconnect:
            return PlainTextResponse("")
        except Exception as error:
            response = _refuse(error, self.service.worker)
        self.service.metrics.add("requests_total", model=model, status=str(response.status_code))
        return response

    async def _answer(self, request: Request, asked: ChatRequest, who: Who) -> Response:
        """An answer whole, or its beginning: whether there is one at all is known by then."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the server is being stopped
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job(who.model, asked.turns(), asked.sampling(), tell)
        self.service.worker.submit(job)
        try:
            begun = await _wait_connected(request, events.get)
            if isinstance(begun, Exception):
                raise begun
            assert isinstance(begun, Begun)
            if not asked.stream:
                text, end = await _wait_connected(request, partial(_collect, events))
                if isinstance(end, Exception):
                    raise end
                content = Answer(who).whole(text, begun.prompt_tokens, end)
                return JSONResponse(content, headers=who.headers())
        except BaseException:
            job.give_up()
            raise
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        stream = _stream(job, events, Answer(who), begun.prompt_tokens, with_usage=usage)
        headers = {**who.headers(), "cache-control": "no-store"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _describe_models(self) -> list[dict[str, Any]]:
        models = self.service.models
        made = {name: domain.built.created for name, domain in models.domains.items()}
        latest = max(made.values(), default=0)
        names = {**made, AUTO: latest, **{f"{BASE}{base}": latest for base in models.bases}}
        return [
            {"id": name, "object": "model", "created": created, "owned_by": "meetara-build"}
            for name, created in names.items()
        ]


async def _wait_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """What ``work`` returns, as long as the client is there; it must not raise.

    Raises:
        ClientDisconnect: the client is gone.
    """
    found = list[T]()
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        found.append(await work())
        group.cancel_scope.cancel()
    if not found:
        raise ClientDisconnect
    return found[0]


async def _collect(events: "asyncio.Queue[Event]") -> tuple[str, End | Exception]:
    pieces = []
    while not isinstance(event := await events.get(), End | Exception):
        pieces.append(str(event))
    return "".join(pieces), event


async def _stream(
    job: Job,
    events: "asyncio.Queue[Event]",
    answer: Answer,
    prompt_tokens: int,
    *,
    with_usage: bool,
) -> AsyncIterator[str]:
    try:
        yield answer.first()
        while not isinstance(event := await events.get(), End):
            if isinstance(event, Exception):
                _log(event)
                yield write_event(write_error(event))
                return
            if event:
                yield answer.piece(str(event))
        yield answer.last(prompt_tokens, event, with_usage=with_usage)
    finally:
        job.give_up()


async def _read_body(request: Request) -> bytes:
    """The body, which is refused as soon as it is too large.

    Raises:
        _TooLargeError: it is.
    """
    told_size = request.headers.get("content-length", "")
    if told_size.isdecimal() and int(told_size) > LARGEST_BODY:
        raise _TooLargeError
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise _TooLargeError
    return bytes(body)


class _TooLargeError(RequestError):
    def __init__(self) -> None:
        super().__init__(f"the body has more than {LARGEST_BODY:,} bytes; send less")


def _refuse(error: Exception, worker: Worker | None = None) -> Response:
    status = 413 if isinstance(error, _TooLargeError) else status_of(error)
    if status >= 500:
        _log(error)
    headers = {}
    if isinstance(error, BusyError) and worker is not None:
        headers["retry-after"] = str(worker.seconds_to_wait())
    if status == 413:
        headers["connection"] = "close"  # what is still to come is not read
    return JSONResponse(write_error(error, status), status_code=status, headers=headers)


def _log(error: Exception) -> None:
    traceback.print_exception(error)


async def _say_unknown(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    said = RequestError(
        f"{request.method} {request.url.path[:100]}: is not served; there are /v1/models, "
        "/v1/chat/completions, /health and /metrics"
    )
    return JSONResponse(write_error(said, status), status_code=status)


async def _say_fault(_: Request, error: Exception) -> Response:
    return JSONResponse(write_error(error), status_code=500)


class _Guard:
    """Lets in who may come in, and lets go who does not read."""

    def __init__(
        self, app: Any, hosts: Sequence[str], is_valid: Callable[[str], bool] | None
    ) -> None:
        self.app, self.hosts, self.is_valid = app, set(hosts), is_valid

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = await self._find_refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_in_time(message: Message) -> None:
            with anyio.fail_after(UNREAD_SECONDS):
                await send(message)

        with contextlib.suppress(TimeoutError):
            await self.app(scope, receive, send_in_time)

    async def _find_refusal(self, scope: Message) -> Response | None:
        headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
        host = _without_port(headers.get(b"host", ""))
        if host not in self.hosts:
            return _deny(421, f"the host '{host[:100]}' is none of this server; see --allow-host")
        origin = headers.get(b"origin")
        if origin is not None and _without_port(origin.partition("://")[2]) not in self.hosts:
            return _deny(403, "pages of other sites are not answered; see --allow-host")
        if self.is_valid is None or scope["path"] == "/health":
            return None
        kind, _, token = headers.get(b"authorization", "").partition(" ")
        try:
            valid = kind.lower() == "bearer" and await anyio.to_thread.run_sync(
                self.is_valid, token.strip()
            )
        except ContextError as error:
            return JSONResponse(write_error(error, 503), status_code=503)
        if valid:
            return None
        return _deny(
            401,
            "a token is needed, as the API key; make one with `meetara-build context token create "
            "NAME`",
        )


def _deny(status: int, message: str) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    error = ContextError(message)
    return JSONResponse(write_error(error, status), status_code=status, headers=headers)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
