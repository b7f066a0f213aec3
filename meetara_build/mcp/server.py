"""context serve: the context for other programs, over stdio or streamable HTTP."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import uvicorn
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, SubscriptionBus
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import INVALID_PARAMS
from pydantic import AnyHttpUrl
from starlette.authentication import AuthenticationError

from meetara_build.context import tokens
from meetara_build.context.delivery import Delivery
from meetara_build.context.local import Local
from meetara_build.context.places import open_local
from meetara_build.errors import ContextError, MeetaraError
from meetara_build.graph import Graph
from meetara_build.listening.address import Announced, is_loopback, list_hosts, listen, write_url
from meetara_build.listening.connections import EndWithToken, WholeRequests
from meetara_build.mcp.older_clients import OlderClients
from meetara_build.mcp.prompts import add_prompts
from meetara_build.mcp.reading import add_reading_tools
from meetara_build.mcp.resources import add_resources
from meetara_build.mcp.served import Served, uri
from meetara_build.mcp.writing import add_writing_tools
from meetara_build.outside import show_block

POLL_SECONDS = 0.1
"""How often changes are looked for: a subscriber hears of one well within a second."""
LARGEST_REQUEST = 4 << 20
PATH = "/mcp"


class Changes:
    """Tells subscribers which sections changed, whoever changed them: jobs here, couriers, agents,
    other processes.

    ``bus`` reaches those who listen as the protocol of 2026 has it.
    """

    def __init__(self, graph: Graph, context: Local) -> None:
        self.context, self.delivery = context, Delivery(graph.root, context)
        self.bus = InMemorySubscriptionBus()
        self.older_clients = OlderClients()
        self.last = context.position()
        self.fault = ""

    async def watch(self) -> None:
        """Take in what waits in the outbox, and tell of what is new, until cancelled."""
        while True:
            for changed in await anyio.to_thread.run_sync(self._list_changed):
                await self.bus.publish(ResourceUpdated(uri=changed))
                await self.older_clients.tell(changed)
            await anyio.sleep(POLL_SECONDS)

    def _list_changed(self) -> list[str]:
        try:
            self.delivery.once()
            self.last, found = self.context.store.changes(self.last)
            self.fault = ""
        except (
            ContextError
        ) as error:  # the database is away: it is said once, and the server goes on
            if str(error) != self.fault:
                print(f"meetara-build: {show_block(error)}", file=sys.stderr, flush=True)
            self.fault = str(error)
            return []
        sections = {uri(section) for section, _ in found}
        return sorted(sections | {uri(section, domain) for section, domain in found if domain})


class Verifier:
    """Whose token it is, by the context's own table."""

    def __init__(self, context: Local) -> None:
        self.context = context

    async def verify_token(self, token: str) -> AccessToken | None:
        """The token's holder and what it lets them do; None if it is nobody's.

        Raises:
            AuthenticationError: nobody can be let in now, for the database is away; the client is
                told so.
        """
        try:
            found = await anyio.to_thread.run_sync(tokens.holder, self.context.store, token)
        except ContextError as error:
            raise AuthenticationError(f"nobody can be let in now: {error}") from None
        return (
            None
            if found is None
            else AccessToken(token=token, client_id=found.name, scopes=list(found.scopes))
        )

    def is_valid(self, token: str) -> bool:
        """Whether a token that was let in still opens anything; while the database is away, it
        does."""
        try:
            return tokens.holder(self.context.store, token) is not None
        except ContextError:
            return True


def make_server(
    served: Served,
    bus: SubscriptionBus,
    auth: AuthSettings | None = None,
    verifier: TokenVerifier | None = None,
) -> MCPServer[Any]:
    """The server, which tells its subscribers what is published on ``bus``.

    ``verifier`` tells whose token one is; without it nobody is asked for one.
    """
    from importlib.metadata import version

    server: MCPServer[Any] = MCPServer(
        "meetara-build",
        title="meetara-build",
        version=version("meetara-build"),
        auth=auth,
        token_verifier=verifier,
        instructions="The shared context of a build of many small models: read the sections, see the plan, propose changes.",
        log_level="CRITICAL",
        subscriptions=bus,
        middleware=[_clearly],
    )
    add_resources(server, served)
    add_reading_tools(server, served)
    add_writing_tools(server, served)
    add_prompts(server, served)
    return server


async def _clearly(ctx: Any, call_next: Any) -> Any:
    """What the SDK and the prompts raise on wrong words of a client is that client's to mend, not
    an internal error."""
    try:
        return await call_next(ctx)
    except MCPError:
        raise
    except (ValueError, MeetaraError) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise MCPError(INVALID_PARAMS, str(reason)) from None


def serve(graph: Graph, *, stdio: bool, host: str, port: int, names: Sequence[str]) -> None:
    """Serve until stopped.

    Raises:
        ContextError: the context is behind another server, nobody has a token for an address that
            others reach, or the address is taken.
    """
    context = open_local(graph.root, graph.context)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            anyio.run(_over_stdio, graph, context) if stdio else anyio.run(
                _over_http, graph, context, host, port, names
            )
    finally:
        context.close()


async def _over_stdio(graph: Graph, context: Local) -> None:
    changes = Changes(graph, context)
    served = Served(context, graph.project)
    server = make_server(served, changes.bus)
    changes.older_clients.serve(server, served)
    async with anyio.create_task_group() as group:
        group.start_soon(changes.watch)
        await server.run_stdio_async()
        group.cancel_scope.cancel()


async def _over_http(
    graph: Graph, context: Local, host: str, port: int, names: Sequence[str]
) -> None:
    guarded = bool(tokens.list_tokens(context.store))
    if not guarded and not is_loopback(host):
        raise ContextError(
            f"{host}: without a token only this machine is served; make one with `meetara-build "
            "context token create NAME`"
        )
    listener = listen(host, port)
    url = f"{write_url(host, listener)}{PATH}"
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(url),
        resource_server_url=AnyHttpUrl(url),
        required_scopes=[tokens.READ],
        validate_token_resource=False,  # a token of this context's table is for this context
    )
    changes = Changes(graph, context)
    served = Served(context, graph.project)
    verifier = Verifier(context)
    server = make_server(
        served, changes.bus, auth if guarded else None, verifier if guarded else None
    )
    changes.older_clients.serve(server, served)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=LARGEST_REQUEST,
        transport_security=_make_security(host, names),
    )
    config = uvicorn.Config(
        EndWithToken(app, verifier.is_valid) if guarded else app,
        http=WholeRequests,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    said = (
        f"serving {context.shown} at {url}, "
        f"{'with tokens' if guarded else 'to this machine, without tokens'}"
    )
    async with anyio.create_task_group() as group:
        group.start_soon(changes.watch)
        await Announced(config, said).serve(sockets=[listener])
        group.cancel_scope.cancel()


def _make_security(host: str, names: Sequence[str]) -> TransportSecuritySettings:
    """Whom requests may be meant for, and where pages that send them may come from: a page of
    another site may not."""
    written = list_hosts(host, names)
    return TransportSecuritySettings(
        allowed_hosts=[form for name in written for form in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{name}{end}"
            for name in written
            for scheme in ("http", "https")
            for end in ("", ":*")
        ],
    )
