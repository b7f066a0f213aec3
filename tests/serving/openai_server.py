"""A real server of a project's domains, and requests as any program can send them."""

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
from commands import until


class Server:
    """A server at work: its URL, what it has printed, and requests to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", printed: Any) -> None:
        self.process, self._printed = process, printed
        self.url = str(until(self._find_url))

    def said(self) -> str:
        """What it has printed."""
        self._printed.seek(0)
        return str(self._printed.read())

    def _find_url(self) -> str | None:
        assert self.process.poll() is None, self.said()
        found = re.search(r"^serving .* at (http://\S+)/v1,", self.said(), re.MULTILINE)
        return found[1] if found else None

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", headers=headers, timeout=60)

    def post(self, body: Any, **headers: str) -> httpx2.Response:
        """A request for an answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        return httpx2.post(
            f"{self.url}/v1/chat/completions", content=raw, headers=headers, timeout=60
        )

    def ask(self, model: str, *texts: str, **more: Any) -> dict[str, Any]:
        """An answer, whole."""
        done = self.post(request(model, *texts, **more))
        assert done.status_code == 200, done.text
        return dict(done.json())

    def count(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if re.match(rf"meetara_{name}\b", line)
        )


def request(model: str, *texts: str, **more: Any) -> dict[str, Any]:
    """A request's body, of a talk that the user begins."""
    roles = ("user", "assistant")
    turns = [
        {"role": roles[at % 2], "content": text} for at, text in enumerate(texts or ["Hello?"])
    ]
    drawn = {"temperature": 1.0, "seed": 7}  # greedily, the small base says nothing but line ends
    return {"model": model, "messages": turns, "max_tokens": 12, **drawn, **more}


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


@contextlib.contextmanager
def served(project: Path, *words: str) -> Iterator[Server]:
    """``meetara-build serve`` on a free port."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "meetara_build", "serve", *words, "--port", "0"],
            cwd=project,
            stderr=printed,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            yield Server(process, printed)
        finally:
            process.terminate()
            process.wait(20)


def hold_back(project: Path, domain: str) -> None:
    """Have a domain's package say that its model is held back."""
    path = project / "artifacts" / domain / "package" / "manifest.json"
    manifest = json.loads(path.read_text())
    said = f"{domain}: not packaged:\n  F16: 4 of 6 answers: tells people to call 151\nGive it more"
    manifest["metrics"]["held_back"] = {"code": "gate-answers", "message": said}
    new = path.with_name("new")
    new.write_text(json.dumps(manifest))
    new.replace(path)
