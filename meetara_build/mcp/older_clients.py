"""Subscriptions of clients that speak an older protocol: the SDK leaves ``resources/subscribe`` to
its lower layer.

That layer has private names only, tried with mcp 2.3. The newest protocol has no such request
(``subscriptions/listen`` instead).
"""

from typing import Any

from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from meetara_build.mcp.served import Served


class OlderClients:
    """Who subscribed to which resource. Each request has a session object of its own; the
    connection below it is what lasts."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[Any, Any]] = {}

    def serve(self, server: Any, served: Served) -> None:
        """Have a server answer their requests."""

        async def subscribe(context: Any, params: SubscribeRequestParams) -> EmptyResult:
            wanted, connection = served.resource(str(params.uri)), context.session._connection
            self.sessions.setdefault(wanted, {})[connection] = context.session
            connection.exit_stack.callback(self.sessions[wanted].pop, connection, None)
            return EmptyResult()

        async def unsubscribe(context: Any, params: UnsubscribeRequestParams) -> EmptyResult:
            self.sessions.get(str(params.uri), {}).pop(context.session._connection, None)
            return EmptyResult()

        add = server._lowlevel_server.add_request_handler
        add("resources/subscribe", SubscribeRequestParams, subscribe)
        add("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)

    async def tell(self, changed: str) -> None:
        """Tell who subscribed to a resource that it changed."""
        for connection, session in list(self.sessions.get(changed, {}).items()):
            try:
                await session.send_resource_updated(changed)
            except Exception:  # whoever went away in this moment
                self.sessions[changed].pop(connection, None)
