"""The context over MCP: what other programs and assistants may read, call and ask for.

::

    resources   meetara://SECTION, meetara://SECTION/{domain}
    reading     similar_domains get_plan read_history read_messages                          tools that change nothing
    writing     report_metrics report_error propose send_message answer report               tools that report
    prompts     review_plan why_failed
"""

from typing import Any

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.subscriptions import SubscriptionBus
from mcp.types import INVALID_PARAMS

from meetara_build.errors import MeetaraError
from meetara_build.mcp.prompts import add_prompts
from meetara_build.mcp.reading import add_reading_tools
from meetara_build.mcp.resources import add_resources
from meetara_build.mcp.served import Served
from meetara_build.mcp.writing import add_writing_tools


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
    """What the SDK and the prompts raise on wrong words of a client is that client's to mend, not an internal error."""
    try:
        return await call_next(ctx)
    except MCPError:
        raise
    except (ValueError, MeetaraError) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise MCPError(INVALID_PARAMS, str(reason)) from None
