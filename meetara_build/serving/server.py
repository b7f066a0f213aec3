"""serve: built domains for other programs, until it is stopped."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
import uvicorn

from meetara_build.config.resolve import Configuration
from meetara_build.context import tokens
from meetara_build.context.local import Local
from meetara_build.context.places import is_served, open_local, url_of
from meetara_build.errors import ArtifactError, ContextError
from meetara_build.graph import Graph
from meetara_build.graph.domain_similarity import Encoder
from meetara_build.listening.address import Announced, is_loopback, list_hosts, listen, write_url
from meetara_build.listening.connections import EndWithToken, WholeRequests
from meetara_build.outside import show_block
from meetara_build.serving.app import Service, make_app
from meetara_build.serving.built import tell
from meetara_build.serving.metrics import Metrics
from meetara_build.serving.models import Models
from meetara_build.serving.reload import Place, Watch
from meetara_build.serving.router import Encode
from meetara_build.serving.worker import Worker

POLL_SECONDS = 1.0
"""How often finished builds are looked for."""
CONNECTIONS = 256
"""At once; more are told that the server is busy."""


def serve(
    graph: Graph, domains: Sequence[str], *, host: str, port: int, names: Sequence[str]
) -> None:
    """Serve these domains, or all, until stopped.

    Raises:
        ArtifactError: none of them can be served.
        ContextError: nobody has a token for an address that others reach, or the address is taken.
    """
    context = _open_tokens(graph)
    try:
        guarded = context is not None and bool(tokens.list_tokens(context.store))
        if not guarded and not is_loopback(host):
            raise ContextError(
                f"{host}: without a token only this machine is served; make one with "
                "`meetara-build context token create NAME`"
            )
        listener = listen(host, port)
        is_valid = _check_with(context) if context is not None and guarded else None
        with contextlib.suppress(KeyboardInterrupt):
            _run(graph, domains, listener, host, names, is_valid)
    finally:
        if context is not None:
            context.close()


def _run(
    graph: Graph,
    domains: Sequence[str],
    listener: socket.socket,
    host: str,
    names: Sequence[str],
    is_valid: Callable[[str], bool] | None,
) -> None:
    watch, encode = _watch(graph, domains), _find_encoder(graph)
    metrics = Metrics()
    models = Models(threads=_count_cores())
    worker = Worker(models, metrics)
    service = Service(models, worker, metrics)
    try:
        watch.look()
        for fault in worker.call(lambda: models.update(list(watch.found.values()))).result():
            _say(fault)
        for line in tell(models.refused.values()):
            _say(line)
        if not models.domains:
            raise ArtifactError(
                "no domain can be served; the reasons stand above, or see `meetara-build status`"
            )
        service.router = watch.make_router(encode)
        app = make_app(
            service, list_hosts(host, names), is_valid, _Reload(watch, service, encode).run
        )
        config = uvicorn.Config(
            EndWithToken(app, is_valid) if is_valid else app,
            http=WholeRequests,
            log_level="warning",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        url = write_url(host, listener)
        said = (
            f"serving {', '.join(models.domains)} at {url}/v1, "
            f"{'with tokens' if is_valid else 'to this machine, without tokens'}"
        )
        anyio.run(_serve, Announced(config, said), listener)
    finally:
        worker.stop()
        models.close()


async def _serve(server: Announced, listener: socket.socket) -> None:
    await server.serve(sockets=[listener])


class _Reload:
    """Takes in what builds finish."""

    def __init__(self, watch: Watch, service: Service, encode: Encode | None) -> None:
        self.watch, self.service, self.encode = watch, service, encode

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await anyio.sleep(POLL_SECONDS)
            if await anyio.to_thread.run_sync(self.watch.look):
                await anyio.to_thread.run_sync(self._take_in)

    def _take_in(self) -> None:
        """The adapters between two answers; the router beside them, for it takes longer."""
        service, found = self.service, list(self.watch.found.values())
        before = set(service.models.domains)
        for fault in service.worker.call(lambda: service.models.update(found)).result():
            _say(fault)
        lost = sorted(before & set(service.models.refused))
        for line in tell(service.models.refused[name] for name in lost):
            _say(line)
        service.router = self.watch.make_router(self.encode)
        service.metrics.add("reloads_total")
        _say(f"a build has finished; serving {', '.join(service.models.domains) or 'nothing'}")


def _watch(graph: Graph, domains: Sequence[str]) -> Watch:
    places = {
        domain: Place(
            graph.root / graph.step("package", domain).place.folder,
            graph.root / graph.step("dataset", domain).place.folder,
        )
        for domain in domains or graph.domains
    }
    sample = Configuration(graph.project).build.sample
    return Watch(graph.root, places, graph.project / sample if sample else None)


def _find_encoder(graph: Graph) -> Encode | None:
    """By meaning too, where build.yaml names an embedding model."""
    model = Configuration(graph.project).build.agents.embedding_model
    return None if model is None else Encoder(model).encode


def _open_tokens(graph: Graph) -> Local | None:
    """The context whose tokens let people in; None where it is on another machine."""
    if is_served(url_of(graph.root, graph.context)):
        return None
    context: Local = open_local(graph.root, graph.context)
    return context


def _check_with(context: Local) -> Callable[[str], bool]:
    return lambda token: tokens.holder(context.store, token) is not None


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(f"meetara-build: {show_block(text)}", file=sys.stderr, flush=True)
