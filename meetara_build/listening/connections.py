"""How long a client of the server over HTTP is waited for, and listened to.

uvicorn has no limit for a request that comes slowly, so that its protocol class is extended here,
and here alone: how it keeps its state is not documented, tried with uvicorn 0.54.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
import anyio.to_thread
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 20.0
"""Within which a request must be here whole, from its connection or its first byte on."""
CHECK_SECONDS = 1.0
"""How often the token of an answer that goes on is looked up again."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class WholeRequests(H11Protocol):
    """HTTP as uvicorn speaks it, which by itself waits for the rest of a head or a body for
    ever."""

    seconds = REQUEST_SECONDS
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless the request is whole."""
        super().data_received(data)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        being_answered = (
            self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        )
        if being_answered:
            self._stop_waiting()
        elif self.deadline is None:
            self.deadline = self.loop.call_later(self.seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


class EndWithToken:
    """An application whose answers end once the token that they were asked for with opens nothing
    any more."""

    def __init__(
        self, app: App, is_valid: Callable[[str], bool], seconds: float = CHECK_SECONDS
    ) -> None:
        """``is_valid`` says so of a token; it may wait for a database."""
        self.app, self.is_valid, self.seconds = app, is_valid, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        token = _find_token(scope)
        if token is None:
            await self.app(scope, receive, send)
            return
        begun = ended = False

        async def note(message: Message) -> None:
            nonlocal begun, ended
            begun, ended = (
                True,
                message["type"] == "http.response.body" and not message.get("more_body", False),
            )
            await send(message)

        async with anyio.create_task_group() as group:
            group.start_soon(self._end_when_revoked, token, group.cancel_scope)
            await self.app(scope, receive, note)
            group.cancel_scope.cancel()
        if not begun:
            await send(
                {
                    "type": "http.response.start",
                    "status": 401,
                    "headers": [(b"connection", b"close")],
                }
            )
        if not ended:
            await send({"type": "http.response.body", "body": b""})

    async def _end_when_revoked(self, token: str, answer: anyio.CancelScope) -> None:
        await anyio.sleep(self.seconds)  # whose token is none is told so by the application
        while await anyio.to_thread.run_sync(self.is_valid, token):
            await anyio.sleep(self.seconds)
        answer.cancel()


def _find_token(scope: Message) -> str | None:
    """The token of a request; None where there is none."""
    given = dict(scope.get("headers", ())).get(b"authorization", b"").decode("latin-1")
    kind, _, token = given.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
