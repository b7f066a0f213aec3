"""Where a server listens, and which names of hosts its requests may be meant for."""

import ipaddress
import socket
import sys
from collections.abc import Sequence

import uvicorn

from meetara_build.errors import ContextError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ContextError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ContextError(
            f"{host} port {port}: cannot be listened on ({error.strerror}); use another --port or "
            "--host"
        ) from None
    return listener


def write_url(host: str, listener: socket.socket) -> str:
    """The URL of a server at a socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def list_hosts(host: str, names: Sequence[str]) -> list[str]:
    """Hosts that requests may be meant for, as headers write them: a page of another site that has
    a name of its own lead here is none; ``names`` are further ones."""
    hosts = {*LOOPBACK, *names}
    if not is_loopback(host):
        hosts |= {host, socket.gethostname(), socket.getfqdn(), *_addresses()}
    return sorted(f"[{name}]" if ":" in name else name for name in hosts)


def _addresses() -> set[str]:
    """This machine's own addresses."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    found = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return {address.address.partition("%")[0] for address in found if address.family in families}


class Announced(uvicorn.Server):
    """A server that says so once it answers, and can be stopped in good order."""

    def __init__(self, config: uvicorn.Config, said: str) -> None:
        super().__init__(config)
        self.said = said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As it is, and then the word."""
        await super().startup(sockets)
        if self.started:
            print(self.said, file=sys.stderr, flush=True)
