"""A client that never finishes its request is let go, and one whose token is revoked hears no
more."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import uvicorn
from commands import until

from meetara_build.listening.connections import EndWithToken, WholeRequests

HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n"


class Hurried(WholeRequests):
    seconds = 0.5


async def drip(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads a request, and answers for longer than it waits for one."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10):
        await send({"type": "http.response.body", "body": b"drop ", "more_body": True})
        await anyio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server that waits half a second for a request."""
    server = uvicorn.Server(
        uvicorn.Config(drip, port=0, http=Hurried, lifespan="off", log_level="error")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    yield until(lambda: server.started and server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST / HT", HEAD, HEAD + b"\r\nhalf"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_who_sends_half_a_request_is_let_go(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        began = time.monotonic()
        assert client.recv(1000) == b""
        assert 0.3 < time.monotonic() - began < 5


def test_who_sends_a_request_slowly_byte_by_byte_is_let_go_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as client:
        assert any(is_let_go(client, byte) for byte in HEAD * 3)


def is_let_go(client: socket.socket, byte: int) -> bool:
    """Whether the server has ended the connection, a moment after one more byte."""
    try:
        client.sendall(bytes([byte]))
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_an_answer_may_take_as_long_as_it_wants(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEAD + b"Connection: close\r\n\r\n0123456789")
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.count(b"drop") == 10
    assert b"end" in answer


SCOPE = {"type": "http", "headers": [(b"authorization", b"Bearer mine")]}


def answered(app: Any, revoked_after: float, scope: Any = SCOPE) -> list[Any]:
    """What an application sends; its token is revoked after so many seconds."""
    sent: list[Any] = []
    end = time.monotonic() + revoked_after

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    watched = EndWithToken(app, lambda token: token == "mine" and time.monotonic() < end, 0.05)
    anyio.run(watched, scope, receive, send)
    return sent


def test_a_stream_ends_in_good_order_soon_after_its_token_is_revoked() -> None:
    sent = answered(drip, 0.3)
    assert sent[0]["status"] == 200
    assert 1 < len(sent) < 10
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_while_its_token_is_good_a_stream_goes_on_to_its_end() -> None:
    assert [message.get("body") for message in answered(drip, 60)] == [
        None,
        *[b"drop "] * 10,
        b"end",
    ]


def test_who_waits_for_an_answer_as_the_token_is_revoked_is_told_so() -> None:
    async def think(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(60)

    assert [message.get("status") for message in answered(think, 0.1)] == [401, None]


def test_without_tokens_nothing_is_looked_up() -> None:
    assert len(answered(drip, 0, {"type": "http", "headers": []})) == 12
