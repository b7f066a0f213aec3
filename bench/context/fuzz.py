"""Calls made from the server's own schemas, right and wrong, over all tools, resources and prompts.

python -m bench.context.fuzz [--calls 10000] [--seed 1]

An unhandled error is one that the server did not mean: an internal error, or an exception that the
SDK logs as unexpected.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.types import INTERNAL_ERROR

from bench import machine
from bench.context.servers import project
from bench.result_files import keep_result
from meetara_build.context.local import Local
from meetara_build.context.store import SECTIONS, Retention
from meetara_build.mcp.served import Served
from meetara_build.mcp.server import make_server

SLOW = ("get_plan", "similar_domains")
"""Tools that work for a tenth of a second or more: called less often."""
TEXTS = [
    "",
    "nutrition",
    "base/mini",
    "../../etc/passwd",
    "a\0b",
    "\ud800",
    "é" * 300,
    "'; DROP TABLE run; --",
    "%00",
    "x" * 9000,
    "nutrition/../legal",
    "\u202enoitirtun",
    "accepted",
    "note",
    "report-1",
    "{{7*7}}",
    "training.epochs",
    "\n",
]
GOOD = ["nutrition", "legal", "base/mini", "adapter", "a"]
NUMBERS = [
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**63),
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    0.5,
    10**30,
]


class Unexpected(logging.Handler):
    """Counts what the SDK logs as an error that no one foresaw."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        self.records.append(
            f"{record.getMessage()} {record.exc_info[1]!r}"
            if record.exc_info
            else record.getMessage()
        )


def value(schema: dict[str, Any], draw: random.Random, depth: int = 0) -> Any:
    """A value of a schema, or now and then of none."""
    if draw.random() < 0.04 or depth > 4:
        return junk(draw)
    if "anyOf" in schema:
        return value(draw.choice(schema["anyOf"]), draw, depth)
    if "enum" in schema:
        return draw.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object":
        names = list(schema.get("properties", {})) or [
            draw.choice(TEXTS) for _ in range(draw.randint(0, 3))
        ]
        inner = schema.get("properties", {})
        other = schema.get("additionalProperties")
        other = other if isinstance(other, dict) else {}
        return {
            name: value(inner.get(name, other), draw, depth + 1)
            for name in names
            if draw.random() < 0.85
        }
    if kind == "array":
        return [value(schema.get("items", {}), draw, depth + 1) for _ in range(draw.randint(0, 4))]
    if kind in ("integer", "number"):
        return draw.choice([draw.randint(0, 100), draw.uniform(-10, 10), draw.choice(NUMBERS)])
    if kind == "boolean":
        return draw.random() < 0.5
    if kind == "string":
        return draw.choice(GOOD if draw.random() < 0.7 else TEXTS)
    return None if kind == "null" else junk(draw)


def junk(draw: random.Random) -> Any:
    """Any JSON, and what is none."""
    found = [
        draw.choice(TEXTS),
        draw.choice(NUMBERS),
        None,
        True,
        [],
        {},
        [draw.choice(TEXTS)] * 3,
        {draw.choice(TEXTS): 1},
        [
            {
                "kind": draw.choice(["run", "sample", "message", "reply", "gossip"]),
                "id": "a",
                "time": 1.0,
            }
        ],
    ]
    return draw.choice(found)


async def fuzz(client: Client, calls: int, draw: random.Random) -> tuple[Counter[str], list[str]]:
    """Make so many calls; what came of them, and the unhandled errors."""
    tools = (await client.list_tools()).tools
    prompts = (await client.list_prompts()).prompts
    seen: Counter[str] = Counter()
    wrong = []
    while seen.total() - seen["not sent by the client"] < calls:
        number, what = seen.total(), draw.random()
        name, arguments = "", None
        try:
            if what < 0.75:
                tool = draw.choice(tools)
                if tool.name in SLOW and draw.random() < 0.95:
                    continue
                name, arguments = tool.name, value(tool.input_schema, draw)
                answer = await client.call_tool(
                    name, arguments if isinstance(arguments, dict) else {}
                )
                seen["refused" if answer.is_error else "answered"] += 1
            elif what < 0.95:
                name = draw.choice(
                    [
                        f"meetara://{draw.choice(SECTIONS)}/{draw.choice(TEXTS)}",
                        draw.choice(TEXTS),
                        f"meetara://{draw.choice(SECTIONS)}",
                    ]
                )
                await client.read_resource(name)
                seen["read"] += 1
            else:
                name = draw.choice([*(prompt.name for prompt in prompts), "nope"])
                await client.get_prompt(
                    name, {"domain": draw.choice(TEXTS), "domains": draw.choice(TEXTS)}
                )
                seen["prompted"] += 1
        except MCPError as error:
            seen["refused"] += 1
            if error.error.code == INTERNAL_ERROR:
                wrong.append(f"call {number}: {name} {arguments!r}: {error}")
        except Exception as error:
            if type(error).__name__ not in (
                "UnicodeEncodeError",
                "ValidationError",
                "PydanticSerializationError",
            ):
                wrong.append(f"call {number}: {name} {arguments!r}: {error!r}")
            seen["not sent by the client"] += 1
    return seen, wrong


def main() -> int:
    """Print the report; 1 if anything was unhandled."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--calls", type=int, default=10_000)
    words.add_argument("--seed", type=int, default=1)
    given = words.parse_args()
    print(machine.describe())
    unexpected = Unexpected()
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch) / "project")
        context = Local(f"sqlite:///{folder / 'context.db'}", Retention())
        server = make_server(Served(context, folder), InMemorySubscriptionBus())
        logging.getLogger("mcp").addHandler(unexpected)

        async def run() -> tuple[Counter[str], list[str]]:
            async with Client(server) as client:
                return await fuzz(client, given.calls, random.Random(given.seed))

        started = time.monotonic()
        seen, wrong = anyio.run(run)
        context.close()
    wrong += unexpected.records
    print(
        f"{sum(seen.values())} calls in {time.monotonic() - started:.0f} s: {json.dumps(seen)}; {len(wrong)} unhandled errors"
    )
    print(*wrong[:20], sep="\n")
    keep_result("context_fuzz", {"calls": given.calls, "unhandled": len(wrong)})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
