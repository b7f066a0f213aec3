"""Many writers and many subscribers of one server: whether each report arrives once, and how soon
it is heard of.

python -m bench.context.load [--writers 16] [--reports 1000]

Each writer is a process that reports of a domain of its own, one report to a call, as fast as it is
answered. Each subscriber listens to one writer's domain. A report is heard of when the first
notification after it was sent has come.
"""

import argparse
import bisect
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from bench import machine
from bench.context.servers import client, postgres, project, served
from bench.result_files import keep_result
from meetara_build.context.local import Local
from meetara_build.context.places import URL
from meetara_build.context.store import Retention
from meetara_build.graph import load

SECONDS = 0.5
SHARE = 0.95


def write(url: str, domain: str, count: int, ready: object, times: Path) -> None:
    """Report so often, and note when."""

    async def reports() -> None:
        sent = []
        async with client(url) as connected:
            ready.wait()  # type: ignore[attr-defined]
            for number in range(count):
                sent.append(time.monotonic())
                made = {
                    "domain": domain,
                    "values": {"number": number},
                    "id": f"{domain}-{number}",
                    "sender": "bench",
                }
                answer = await connected.call_tool("report_metrics", made)
                assert not answer.is_error, answer.content
        times.write_text(json.dumps(sent))

    anyio.run(reports)


def listen(url: str, domains: Sequence[str], ready: object, ended: object, times: Path) -> None:
    """Note when a notification of each domain comes."""
    heard: dict[str, list[float]] = {domain: [] for domain in domains}

    async def subscribe(domain: str, started: anyio.Event) -> None:
        async with client(url) as connected:
            uri = f"meetara://quality_metrics/{domain}"
            async with connected.listen(resource_subscriptions=[uri]) as events:
                started.set()
                async for _ in events:
                    heard[domain].append(time.monotonic())

    async def subscribers() -> None:
        async with anyio.create_task_group() as group:
            for domain in domains:
                started = anyio.Event()
                group.start_soon(subscribe, domain, started)
                await started.wait()
            ready.wait()  # type: ignore[attr-defined]
            while not ended.is_set():  # type: ignore[attr-defined]
                await anyio.sleep(0.1)
            await anyio.sleep(2)
            group.cancel_scope.cancel()

    anyio.run(subscribers)
    times.write_text(json.dumps(heard))


def campaign(folder: Path, url: str, database: str, writers: int, count: int) -> dict[str, float]:
    """Run it against a server; print and return what it showed."""
    domains = load(folder).domains[:writers]
    context = multiprocessing.get_context("spawn")
    halves = [domains[::2], domains[1::2]]
    ready, ended = context.Barrier(writers + len(halves)), context.Event()
    scratch = folder.parent
    listeners = [
        context.Process(
            target=listen, args=(url, half, ready, ended, scratch / f"heard-{number}.json")
        )
        for number, half in enumerate(halves)
    ]
    processes = [
        context.Process(target=write, args=(url, domain, count, ready, scratch / f"{domain}.json"))
        for domain in domains
    ]
    for process in [*listeners, *processes]:
        process.start()
    for process in processes:
        process.join()
    ended.set()
    for process in listeners:
        process.join()
    heard = {}
    for number in range(len(halves)):
        heard |= json.loads((scratch / f"heard-{number}.json").read_text())
    sent = {domain: json.loads((scratch / f"{domain}.json").read_text()) for domain in domains}
    delays = sorted(delay for domain in domains for delay in _delays(sent[domain], heard[domain]))
    local = Local(database, Retention())
    kept = [row["id"] for row in local.store.export() if row["kind"] == "metrics"]
    local.close()
    wanted = {f"{domain}-{number}" for domain in domains for number in range(count)}
    seconds = max(max(times) for times in sent.values()) - min(
        min(times) for times in sent.values()
    )
    print(
        f"  {len(wanted)} reports of {writers} writers in {seconds:.0f} s; lost {len(wanted - set(kept))}, "
        f"doubled {len(kept) - len(set(kept))}"
    )
    print(
        f"  heard of by {len(domains)} subscribers: median {statistics.median(delays) * 1000:.0f} ms, "
        f"95% within {delays[int(len(delays) * SHARE)] * 1000:.0f} ms (bound {SECONDS * 1000:.0f}), "
        f"last {delays[-1] * 1000:.0f} ms",
        flush=True,
    )
    return {
        "lost": len(wanted - set(kept)),
        "doubled": len(kept) - len(set(kept)),
        "p95_ms": round(delays[int(len(delays) * SHARE)] * 1000),
    }


def _delays(sent: Sequence[float], heard: Sequence[float]) -> list[float]:
    """From each report's sending to the first notification after it; infinite where none came."""
    found = []
    for moment in sent:
        at = bisect.bisect_left(heard, moment)
        found.append(heard[at] - moment if at < len(heard) else float("inf"))
    return found


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--writers", type=int, default=16)
    words.add_argument("--reports", type=int, default=1000, help="of each writer")
    given = words.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch) / "project")
        print("SQLite", flush=True)
        with served(folder) as url:
            sqlite = campaign(
                folder,
                url,
                f"sqlite:///{folder / 'artifacts' / 'context.db'}",
                given.writers,
                given.reports,
            )
        print("PostgreSQL", flush=True)
        with postgres() as database, served(folder, **{URL: database}) as url:
            postgresql = campaign(folder, url, database, given.writers, given.reports)
    about = {"writers": given.writers, "reports": given.reports}
    keep_result("context_load", {**about, "sqlite": sqlite, "postgresql": postgresql})


if __name__ == "__main__":
    main()
