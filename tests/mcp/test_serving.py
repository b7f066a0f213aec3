"""A real server: who gets in, who does not, and how soon subscribers hear of a change."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import sqlalchemy as sa
from commands import run_there, start
from mcp import Client, MCPError, StdioServerParameters
from mcp.server.subscriptions import ResourceUpdated
from projects import copy_built
from served import Guarded, client, served

from meetara_build.context.outbox import Outbox

PING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
HEADERS = {"Accept": "application/json, text/event-stream"}
PROPOSAL = {"domain": "nutrition", "key": "training.epochs", "value": 4, "reason": "it still falls"}


@pytest.fixture(scope="module")
def open_project(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project without tokens."""
    return copy_built(built_project, tmp_path_factory.mktemp("open") / "project")


@pytest.fixture(scope="module")
def url(open_project: Path) -> Iterator[str]:
    """Its server's URL."""
    with served(open_project) as at:
        yield at


@pytest.fixture(scope="module")
def guarded(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A built project with a token to write and one to read, served."""
    with Guarded(
        copy_built(built_project, tmp_path_factory.mktemp("guarded") / "project")
    ).served() as made:
        yield made


def post(url: str, body: Any = PING, **headers: str) -> httpx2.Response:
    """A request as any program can send it."""
    return httpx2.post(
        url,
        content=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **HEADERS, **headers},
        timeout=30,
    )


# Who gets in


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ],
)
def test_without_the_right_token_nobody_gets_in(guarded: Guarded, header: dict[str, str]) -> None:
    answer = post(guarded.url, **header)
    assert answer.status_code == 401
    assert "Authentication required" in answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_opens_the_door(guarded: Guarded) -> None:
    assert post(guarded.url, Authorization=f"Bearer {guarded.reader}").status_code == 200


def test_a_token_to_read_cannot_write(guarded: Guarded) -> None:
    async def tried() -> list[Any]:
        async with client(guarded.url, guarded.reader) as connected:
            calls = [
                ("propose", PROPOSAL),
                ("report", {"reports": []}),
                ("report_metrics", {"domain": "nutrition", "values": {"a": 1}}),
                ("report_error", {"domain": "nutrition", "message": "x"}),
                ("send_message", {"about": "note", "body": {}}),
                ("answer", {"message": "x", "answer": "noted"}),
            ]
            read = [await connected.read_resource("meetara://training_state")]
            return [await connected.call_tool(*call) for call in calls] + read

    *answers, read = anyio.run(tried)
    assert all(answer.is_error for answer in answers)
    refused = [answer.content[0].text for answer in answers[:5]]
    assert all("the token 'reader' may only read" in text for text in refused)
    assert json.loads(read.contents[0].text)["optimization_suggestions"] == []


def test_whoever_writes_is_named_by_the_token(guarded: Guarded) -> None:
    async def written() -> Any:
        async with client(guarded.url, guarded.writer) as connected:
            await connected.call_tool(
                "propose", {**PROPOSAL, "sender": "somebody_else", "id": "named"}
            )
            return (await connected.call_tool("read_messages", {})).structured_content

    assert {message["id"]: message["sender"] for message in anyio.run(written)["messages"]}[
        "named"
    ] == "writer"


def test_a_revoked_token_opens_nothing_at_once(guarded: Guarded) -> None:
    token = guarded.token("leaving")
    assert post(guarded.url, Authorization=f"Bearer {token}").status_code == 200
    run_there(
        guarded.project,
        sys.executable,
        "-m",
        "meetara_build",
        "context",
        "token",
        "revoke",
        "leaving",
    )
    assert post(guarded.url, Authorization=f"Bearer {token}").status_code == 401


def test_a_stream_ends_when_its_token_is_revoked(guarded: Guarded) -> None:
    token = guarded.token("listener")
    headers = {**HEADERS, "Authorization": f"Bearer {token}", "MCP-Protocol-Version": "2025-11-25"}
    session = post(guarded.url, Authorization=f"Bearer {token}").headers["mcp-session-id"]
    with (
        httpx2.Client(timeout=30) as http,
        http.stream("GET", guarded.url, headers={**headers, "Mcp-Session-Id": session}) as stream,
    ):
        assert stream.status_code == 200
        run_there(
            guarded.project,
            sys.executable,
            "-m",
            "meetara_build",
            "context",
            "token",
            "revoke",
            "listener",
        )
        began = time.monotonic()
        list(stream.iter_raw())
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:80"}, 421),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
def test_a_page_of_another_site_does_not_get_in(
    url: str, header: dict[str, str], status: int
) -> None:
    assert post(url, **header).status_code == status
    assert post(url).status_code == 200


def test_a_request_that_is_too_large_is_refused_and_the_server_goes_on(url: str) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "report", "arguments": {"reports": ["x" * 10_000_000]}},
    }
    assert post(url, call).status_code == 413
    assert post(url).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"jsonrpc": "2.0"}', b'{"a":' * 10_000]
)
def test_what_is_no_message_is_refused(url: str, body: bytes) -> None:
    assert 400 <= post(url, body).status_code < 500
    assert post(url).status_code == 200


def test_without_a_token_only_this_machine_is_served(open_project: Path) -> None:
    said = run_there(
        open_project,
        sys.executable,
        "-m",
        "meetara_build",
        "context",
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    )
    assert said.returncode == 1
    assert (
        "0.0.0.0: without a token only this machine is served; make one with `meetara-build context token create NAME`"
        in said.stderr
    )


def test_with_a_token_other_machines_are_served(guarded: Guarded) -> None:
    with served(guarded.project, "--host", "0.0.0.0", "--port", "0") as at:
        here = at.replace("0.0.0.0", "127.0.0.1")
        assert post(here).status_code == 401
        assert post(here, Authorization=f"Bearer {guarded.reader}").status_code == 200
        assert (
            post(here, Authorization=f"Bearer {guarded.reader}", Host="evil.example").status_code
            == 421
        )


def test_an_address_that_is_taken_is_named(url: str, open_project: Path) -> None:
    port = url.split(":")[2].split("/")[0]
    said = run_there(
        open_project, sys.executable, "-m", "meetara_build", "context", "serve", "--port", port
    )
    assert said.returncode == 1
    assert (
        f"127.0.0.1 port {port}: cannot be listened on (Address already in use); use another --port"
        in said.stderr
    )


def test_while_the_database_is_away_nobody_gets_in_and_is_told_why(
    built_project: Path, tmp_path: Path, postgres: str
) -> None:
    project = copy_built(built_project, tmp_path / "project")
    environment = {"MEETARA_CONTEXT": postgres}
    words = [sys.executable, "-m", "meetara_build", "context", "token", "create", "desk", "--json"]
    token = json.loads(run_there(project, *words, **environment).stdout)["token"]
    whole = sa.make_url(postgres).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(whole.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with served(project, "--port", "0", **environment) as at, engine.connect() as connection:
        assert post(at, Authorization=f"Bearer {token}").status_code == 200
        connection.execute(sa.text(f"ALTER DATABASE {whole.database} ALLOW_CONNECTIONS false"))
        connection.execute(
            sa.text(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{whole.database}'"
            )
        )
        answer = post(at, Authorization=f"Bearer {token}")
        assert 400 <= answer.status_code < 600
        assert "nobody can be let in now" in answer.text
        assert "cannot be reached" in answer.text
        connection.execute(sa.text(f"ALTER DATABASE {whole.database} ALLOW_CONNECTIONS true"))
        assert post(at, Authorization=f"Bearer {token}").status_code == 200
    engine.dispose()


def test_it_ends_in_good_order_when_it_is_stopped(open_project: Path) -> None:
    process = start(open_project, "context", "serve", "--port", "0")
    assert process.stderr is not None
    assert "serving" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == ""


# How soon a change is heard of


def test_a_subscriber_hears_of_a_change_within_a_second_whoever_made_it(
    url: str, open_project: Path
) -> None:
    async def heard() -> dict[str, float]:
        found: dict[str, float] = {}
        async with client(url) as one, client(url) as other:
            wanted = [
                "meetara://training_state",
                "meetara://training_state/nutrition",
                "meetara://resource_status",
            ]
            async with one.listen(resource_subscriptions=wanted) as events:
                began = time.monotonic()
                await other.call_tool("propose", PROPOSAL)
                async for event in events:
                    assert isinstance(event, ResourceUpdated)
                    found[event.uri] = time.monotonic() - began
                    if len(found) == 2:
                        break
                box = Outbox(
                    open_project / "artifacts",
                    domain="nutrition",
                    stage="adapter",
                    build="b",
                    machine="m",
                    hardware="cpu",
                )
                began = time.monotonic()
                box.put("sample", cpu_percent=1.0, memory_mb=1.0, available_mb=1.0, total_mb=1.0)
                async for event in events:
                    if event.uri == "meetara://resource_status":
                        found[event.uri] = time.monotonic() - began
                        break
                box.close()
        return found

    found = anyio.run(heard)
    assert set(found) == {
        "meetara://training_state",
        "meetara://training_state/nutrition",
        "meetara://resource_status",
    }
    assert max(found.values()) < 1.0


@pytest.mark.filterwarnings("ignore:resources/")
def test_a_client_of_the_older_protocol_subscribes_too(url: str) -> None:
    heard: list[str] = []

    async def note(message: Any) -> None:
        heard.append(str(getattr(getattr(message, "params", None), "uri", "")))

    async def talked() -> None:
        async with client(url, mode="legacy", message_handler=note) as connected:
            await connected.subscribe_resource("meetara://knowledge_base")
            await connected.call_tool("report_error", {"domain": "nutrition", "message": "x"})
            await anyio.sleep(1)
            with pytest.raises(MCPError, match="unknown domain"):
                await connected.subscribe_resource("meetara://knowledge_base/nope")
            await connected.unsubscribe_resource("meetara://knowledge_base")
            await connected.call_tool("report_error", {"domain": "nutrition", "message": "y"})
            await anyio.sleep(0.5)

    anyio.run(talked)
    assert [uri for uri in heard if uri] == ["meetara://knowledge_base"]


# Other ways in


def test_the_server_speaks_over_standard_input_and_output(open_project: Path) -> None:
    words = ["-m", "meetara_build", "context", "serve", "--stdio"]
    parameters = StdioServerParameters(
        command=sys.executable, args=words, cwd=str(open_project), env=dict(os.environ)
    )

    async def talked() -> tuple[int, Any]:
        async with Client(parameters) as connected:
            async with connected.listen(
                resource_subscriptions=["meetara://training_state"]
            ) as events:
                await connected.call_tool("propose", PROPOSAL)
                event = await anext(aiter(events))
            return len((await connected.list_resources()).resources), event

    count, event = anyio.run(talked)
    assert count == 4
    assert event.uri == "meetara://training_state"
