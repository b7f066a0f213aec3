"""A real server of a project's context, and clients of it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from commands import run_there, until
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


@contextlib.contextmanager
def served(project: Path, *words: str, **environment: str) -> Iterator[str]:
    """``meetara-build context serve`` on a free port; its URL."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "meetara_build",
                "context",
                "serve",
                *(words or ("--port", "0")),
            ],
            cwd=project,
            stderr=said,
            env={**os.environ, **environment},
        )

        def url() -> str | None:
            said.seek(0)
            text = said.read()
            assert process.poll() is None, text
            found = re.search(r"(http://\S+),", text)
            return found[1] if found else None

        try:
            yield str(until(url))
        finally:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def client(url: str, token: str | None = None, **settings: Any) -> Any:
    """The SDK's client, with a token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), **settings) as connected,
    ):
        yield connected


class Guarded:
    """A project with tokens, and its server."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.writer, self.reader = self.token("writer"), self.token("reader", "--read-only")
        self.url = ""

    def token(self, *words: str) -> str:
        """A new token."""
        command = [
            sys.executable,
            "-m",
            "meetara_build",
            "context",
            "token",
            "create",
            *words,
            "--json",
        ]
        return str(json.loads(run_there(self.project, *command).stdout)["token"])

    @contextlib.contextmanager
    def served(self) -> "Iterator[Guarded]":
        """Its server at work."""
        with served(self.project) as self.url:
            yield self
